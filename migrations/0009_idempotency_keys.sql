-- What was answered to a request that bore an Idempotency-Key: sent again, it gets the same answer and does nothing.

create table idempotency_keys (
  project_id   text not null references projects,
  key          text not null check (length(key) between 1 and 255),
  -- of method, path and body: the same key on another request is a mistake of the client's
  request_hash bytea not null check (octet_length(request_hash) = 32),
  response     jsonb not null,
  created_at   timestamptz not null default clock_timestamp(),
  primary key (project_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);
