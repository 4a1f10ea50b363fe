-- Uploads in parts: each part is an object of the project until the upload is complete, cancelled or expired.

create table uploads (
  id                     text primary key,
  project_id             text not null references projects,
  filename               text not null,
  purpose                text not null,
  bytes                  bigint not null check (bytes > 0),
  mime_type              text not null,
  -- the life of the file that it becomes
  expires_after_seconds  integer,
  status                 text not null default 'pending' check (status in ('pending', 'completed', 'cancelled')),
  -- no reference: the file may be deleted, the upload stays as it ended
  file_id                text,
  created_at             timestamptz not null default now(),
  expires_at             timestamptz not null,
  check ((status = 'completed') = (file_id is not null))
);
create index uploads_expiring on uploads (expires_at);

create table upload_parts (
  id          text primary key,
  upload_id   text not null references uploads on delete cascade,
  project_id  text not null references projects,
  sha256      text not null,
  bytes       bigint not null,
  created_at  timestamptz not null default now(),
  foreign key (project_id, sha256) references objects
);
create index upload_parts_by_upload on upload_parts (upload_id);
create index upload_parts_by_object on upload_parts (project_id, sha256);
