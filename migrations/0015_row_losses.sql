-- How each training row did in each epoch: packed, for a file has many rows and a job many epochs.

create table fine_tuning_row_losses (
  job_id  text not null references fine_tuning_jobs,
  -- the state that they were kept with, in one transaction
  step    integer not null check (step > 0),
  epoch   integer not null check (epoch > 0),
  -- of so many rows: lines of the training file as 32-bit integers, losses as 32-bit floats, little-endian
  lines   bytea not null,
  losses  bytea not null,
  primary key (job_id, step),
  check (octet_length(lines) = octet_length(losses))
);
