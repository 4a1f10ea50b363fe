-- A job holds its files' bytes only while it may still read them: afterwards deleting a file deletes its bytes.
-- The hashes stay, they say what a model was made of.

alter table fine_tuning_jobs
  drop constraint fine_tuning_jobs_project_id_training_sha256_fkey,
  drop constraint fine_tuning_jobs_project_id_validation_sha256_fkey,
  add column training_pin text,
  add column validation_pin text;

update fine_tuning_jobs
   set training_pin = training_sha256, validation_pin = validation_sha256
 where finished_at is null;

alter table fine_tuning_jobs
  add foreign key (project_id, training_pin) references objects,
  add foreign key (project_id, validation_pin) references objects,
  add check (finished_at is not null or training_pin is not null);

drop index fine_tuning_jobs_by_training, fine_tuning_jobs_by_validation;
create index fine_tuning_jobs_by_training on fine_tuning_jobs (project_id, training_pin)
  where training_pin is not null;
create index fine_tuning_jobs_by_validation on fine_tuning_jobs (project_id, validation_pin)
  where validation_pin is not null;
