-- A pause is a wish first: whoever holds the work commits a checkpoint, and then lets the work rest.

alter table work add column pause_requested boolean not null default false;

-- A checkpoint of a pause stays until its name ends; of the epochs' ends only the last three do.
alter table fine_tuning_checkpoints
  add column made_by text not null default 'epoch' check (made_by in ('epoch', 'pause'));
