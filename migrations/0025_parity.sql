-- That a tuned model is served as it was trained: what was compared, and how far it was apart. Null for models that
-- were there before anybody looked, and for those of a kind that is not compared.

alter table models add column parity jsonb;
