-- What a job's files were found to be like before it trained, as a preflight says it.

alter table fine_tuning_jobs add column preflight jsonb;
