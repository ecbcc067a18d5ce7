-- How a session stands towards the second factor (docs/protocol.md §10.9).

ALTER TABLE session ADD COLUMN factor TEXT NOT NULL DEFAULT 'none'
  CHECK (factor IN ('none', 'needed', 'device', 'enrol', 'proven'));
