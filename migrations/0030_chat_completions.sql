-- Chat completions that were asked with `store`: the answer, and the messages that it answers. json, not jsonb: texts of
-- models may hold what jsonb refuses.

create table chat_completions (
  id          text primary key,
  seq         bigint generated always as identity,
  project_id  text not null references projects,
  -- as the client called it
  model       text not null,
  metadata    jsonb not null,
  -- as it was answered, with what it was asked with
  completion  json not null,
  -- as they were sent
  messages    json not null,
  created_at  timestamptz not null default now()
);
create index chat_completions_by_project on chat_completions (project_id, seq);
create index chat_completions_by_age on chat_completions (created_at);
