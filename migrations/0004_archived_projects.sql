-- A project that is archived keeps all it has and refuses every request; nothing of it is deleted.

alter table projects add column archived_at timestamptz;
