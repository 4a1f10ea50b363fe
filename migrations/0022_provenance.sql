-- The key that signs what is said of models: one for the whole database, made when it is first needed. And which
-- models a model was made of, where it is more than the one that its row names.

create table signing_keys (
  only_one     boolean primary key default true check (only_one),
  private_key  text not null,
  created_at   timestamptz not null default now()
);

create table model_parents (
  project_id  text not null references projects,
  model       text not null,
  parent      text not null,
  primary key (project_id, model, parent)
);
create index model_parents_by_parent on model_parents (project_id, parent);
