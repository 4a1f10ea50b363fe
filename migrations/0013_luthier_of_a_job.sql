-- What a job was sent in `luthier`, the extension of its body: {data, publish}; null where it was not sent. The file
-- that its training rows are compared with is pinned while the job may still read it.

alter table fine_tuning_jobs
  add column luthier jsonb,
  add column reference_sha256 text,
  add column reference_pin text,
  add foreign key (project_id, reference_pin) references objects;

create index fine_tuning_jobs_by_reference on fine_tuning_jobs (project_id, reference_pin)
  where reference_pin is not null;
