-- Whole models are searched by an eval too: what a candidate's run asks is files, the two of an adapter over its base
-- model (`root`) or all of a model. One table has both, in place of two columns for the first.

create table eval_run_files (
  run_id      text not null references eval_runs on delete cascade,
  project_id  text not null references projects,
  path        text not null,
  sha256      text not null,
  primary key (run_id, path),
  foreign key (project_id, sha256) references objects
);
create index eval_run_files_by_object on eval_run_files (project_id, sha256);

insert into eval_run_files (run_id, project_id, path, sha256)
select id, project_id, 'adapter_model.safetensors', adapter_sha256
  from eval_runs where adapter_sha256 is not null
union all
select id, project_id, 'adapter_config.json', adapter_config_sha256
  from eval_runs where adapter_config_sha256 is not null;

alter table eval_runs
  drop column adapter_sha256,
  drop column adapter_config_sha256;
