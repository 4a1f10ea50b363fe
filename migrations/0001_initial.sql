-- Who may ask (organizations, projects, keys) and what they gave us (objects, files).
-- Every row below a project names its project, and no query goes without it.
-- Ids are made in code: they carry their kind (`file-…`, `proj_…`), as clients expect.

create table organizations (
  id          text primary key,
  -- stands in the names of tuned models: ft:<model>:<slug>:<suffix>:<id>
  slug        text not null unique check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name        text not null,
  created_at  timestamptz not null default now()
);

create table projects (
  id               text primary key,
  organization_id  text not null references organizations,
  name             text not null,
  created_at       timestamptz not null default now()
);
create index projects_by_organization on projects (organization_id, created_at);

create table api_keys (
  id          text primary key,
  project_id  text not null references projects,
  name        text not null,
  -- SHA-256 of the key; the key itself is shown once and kept nowhere
  hash        bytea not null unique check (octet_length(hash) = 32),
  scope       text not null check (scope in ('admin', 'member', 'read')),
  created_at  timestamptz not null default now(),
  revoked_at  timestamptz
);
create index api_keys_by_project on api_keys (project_id, created_at);

-- Bytes in the object store, content-addressed within a project. Whoever needs them references the
-- row; what nothing references may be swept once it has been idle for a while.
create table objects (
  project_id  text not null references projects,
  sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  bytes       bigint not null check (bytes >= 0),
  created_at  timestamptz not null default now(),
  -- renewed by every upload of the same bytes, so that a sweep does not overtake it
  touched_at  timestamptz not null default now(),
  primary key (project_id, sha256)
);

create table files (
  id              text primary key,
  project_id      text not null references projects,
  sha256          text not null,
  bytes           bigint not null,
  filename        text not null,
  purpose         text not null,
  status          text not null check (status in ('uploaded', 'processed', 'error')),
  status_details  text,
  created_at      timestamptz not null default now(),
  expires_at      timestamptz,
  foreign key (project_id, sha256) references objects
);
create index files_by_project on files (project_id, created_at desc, id desc);
create index files_by_object on files (project_id, sha256);
create index files_expiring on files (expires_at) where expires_at is not null;
create index files_unchecked on files (created_at) where status = 'uploaded';
