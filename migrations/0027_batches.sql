-- Batches: files of requests that are answered when there is time. Each line's answer is kept by itself until all are
-- there and become files: whoever goes on after a crash knows what has been answered.

create table batches (
  id                            text primary key references work,
  seq                           bigint generated always as identity,
  project_id                    text not null references projects,
  endpoint                      text not null,
  completion_window             text not null,
  status                        text not null default 'validating' check (status in
                                  ('validating', 'failed', 'in_progress', 'finalizing', 'completed',
                                   'expired', 'cancelling', 'cancelled')),
  input_file_id                 text not null,
  -- pinned while it is worked on, so that the file may be deleted; null afterwards
  input_sha256                  text,
  -- where all lines name the same one
  model                         text,
  -- the lines that cannot be read: [{code, message, line, param}]; json, for texts of clients may hold what jsonb refuses
  errors                        json,
  -- no references: the files may be deleted
  output_file_id                text,
  error_file_id                 text,
  output_expires_after_seconds  integer not null,
  metadata                      jsonb,
  -- lines, counted once they have been checked; and what they came to
  total                         integer not null default 0,
  completed                     integer not null default 0,
  failed                        integer not null default 0,
  input_tokens                  bigint not null default 0,
  cached_tokens                 bigint not null default 0,
  output_tokens                 bigint not null default 0,
  created_at                    timestamptz not null default now(),
  expires_at                    timestamptz not null,
  in_progress_at                timestamptz,
  finalizing_at                 timestamptz,
  cancelling_at                 timestamptz,
  -- the moment of its last status, whichever it is
  finished_at                   timestamptz,
  foreign key (project_id, input_sha256) references objects,
  check ((status in ('failed', 'completed', 'expired', 'cancelled')) = (finished_at is not null))
);
create index batches_newest on batches (project_id, seq desc);
create index batches_by_input on batches (project_id, input_sha256) where input_sha256 is not null;

create table batch_answers (
  batch_id  text not null references batches,
  -- of the input file, from 1
  line      integer not null,
  failed    boolean not null,
  -- a line of the output or of the error file, as it will stand there
  answer    text not null,
  -- a request is answered once, however often its batch is taken up again
  primary key (batch_id, line)
);
