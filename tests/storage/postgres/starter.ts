import { openPostgres } from "../../../src/storage/postgres.ts";

/** Child of race.test.ts: opens a database that others open at the same time, and says what it found there. */
const store = await openPostgres(process.env["STARTER_URL"] ?? "");
const incarnation = await store.transaction(async (tx) => {
  const known = await tx.setting("incarnation");
  if (known !== undefined) return known;
  const made = crypto.randomUUID().replaceAll("-", "");
  await tx.putSetting("incarnation", made);
  return made;
});
await store.close();
process.stdout.write(`incarnation ${incarnation}\n`);
