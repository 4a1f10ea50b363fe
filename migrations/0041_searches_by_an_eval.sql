-- A search of a merge may go by an eval: how and over which rows, settled when the merge is created ({eval_id,
-- data_source}, the rows pinned until it ends). Each candidate is asked by a run, which names the weights that it asks
-- itself: they are no model's. With the merge they end.

alter table merges
  add column eval json,
  add column eval_items_sha256 text,
  add foreign key (project_id, eval_items_sha256) references objects;
create index merges_by_eval_rows on merges (project_id, eval_items_sha256)
  where eval_items_sha256 is not null;

alter table eval_runs
  add column merge_id text references merges,
  add column candidate integer,
  -- the base model that the adapter fits, and the adapter until the candidate has its score
  add column root text,
  add column adapter_sha256 text,
  add column adapter_config_sha256 text,
  add foreign key (project_id, adapter_sha256) references objects,
  add foreign key (project_id, adapter_config_sha256) references objects,
  add unique (merge_id, candidate);
create index eval_runs_by_adapter on eval_runs (project_id, adapter_sha256)
  where adapter_sha256 is not null;
create index eval_runs_by_adapter_config on eval_runs (project_id, adapter_config_sha256)
  where adapter_config_sha256 is not null;
