import { Database } from "bun:sqlite";

declare const self: Worker;

/** Copies a database into a new file, without its free pages, as of one moment; writers go on meanwhile. */
self.onmessage = ({ data }: MessageEvent<{ from: string; to: string }>) => {
  try {
    const db = new Database(data.from, { readonly: true, strict: true });
    try {
      db.run("PRAGMA busy_timeout = 5000");
      db.run("PRAGMA trusted_schema = 0");
      db.prepare("VACUUM INTO ?1").run(data.to);
    } finally {
      db.close();
    }
    self.postMessage({ error: null });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    self.postMessage({ error: code });
  }
};
