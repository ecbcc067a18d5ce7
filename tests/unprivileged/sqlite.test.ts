import { afterAll, expect } from "bun:test";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { rejection } from "../storage/rejection.ts";
import { temporaryDirectories } from "../storage/temporary.ts";
import { testUnprivileged } from "../support/skip.ts";

const directories = temporaryDirectories();
afterAll(directories.clean);

testUnprivileged("a database or directory that may not be written is refused with a fault", async () => {
  const path = join(directories.make(), "keyhold.db");
  await (await openSqlite(path)).close();
  chmodSync(path, 0o400);
  expect(await rejection(openSqlite(path))).toMatchObject({ code: "storage" });
  // nothing was left beside it that outlasts the mistake
  chmodSync(path, 0o600);
  const mended = await openSqlite(path);
  await mended.transaction((tx) => tx.putSetting("name", "value"));
  await mended.close();
  const directory = directories.make();
  chmodSync(directory, 0o500);
  expect(await rejection(openSqlite(join(directory, "keyhold.db")))).toMatchObject({ code: "storage" });
  chmodSync(directory, 0o700);
});
