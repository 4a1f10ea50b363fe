-- A file may be made of another: {file_id, job_id, removed_rows}. It outlives its parent.

alter table files add column parent jsonb;
