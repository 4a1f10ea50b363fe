-- What a search has chosen: the weights or the density that the merge was made with, and the loss that they have.
alter table merges add column chosen jsonb;
