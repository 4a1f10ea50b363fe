-- Answers of /v1/responses that are kept, so that they can be read again and gone on from: each with what was new in its
-- request; what came before it is with those before it. json, not jsonb: texts of models may hold what jsonb refuses.

create table responses (
  id                    text primary key,
  seq                   bigint generated always as identity,
  project_id            text not null references projects,
  -- no foreign key: one that others go on from may be deleted, and they say so when they are gone on from
  previous_response_id  text,
  -- as it was answered
  response              json not null,
  -- items with their ids, in their order
  input                 json not null,
  created_at            timestamptz not null default now()
);
create index responses_by_previous on responses (previous_response_id)
  where previous_response_id is not null;
create index responses_by_age on responses (created_at);
