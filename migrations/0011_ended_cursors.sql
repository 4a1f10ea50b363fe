-- Where in its list a row stood that is gone: whoever pages with its id as `after` goes on from there.
-- Kept for a day; an id that was never in the list is still a mistake.

create table ended_cursors (
  -- the project of a file, the job of a checkpoint
  list_id      text not null,
  id           text not null,
  -- what the list is ordered by: files by their time, checkpoints by their step
  created_at   timestamptz not null,
  step_number  integer,
  ended_at     timestamptz not null default now(),
  primary key (list_id, id)
);
create index ended_cursors_by_age on ended_cursors (ended_at);
