-- What work asks of whoever claims it: so many devices at once, and, once that is settled, of which kind. A worker
-- without them leaves it to others.

alter table work
  add devices integer not null default 1 check (devices >= 1),
  add device text;
