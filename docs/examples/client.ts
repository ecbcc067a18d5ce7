/**
 * A program that uses keyhold: registers, opens a session, generates, stores, retrieves, exports, audits, closes.
 *
 * Run it against a server of your own:
 *   bun docs/examples/client.ts URL PIN HOME_DIRECTORY ACCOUNT < password.txt
 */
import { join } from "node:path";
import { Fault, json, openProfile, readProfile, realSurroundings, registerAccount } from "keyhold/client";

const [url, pin, directory, account] = process.argv.slice(2);
if (!url || !pin || !directory || !account) throw new Error("usage: client.ts URL PIN HOME_DIRECTORY ACCOUNT");
const password = new TextEncoder().encode((await Bun.stdin.text()).replace(/\r?\n$/, "").normalize("NFC"));

const home = { profiles: join(directory, "profiles"), vaults: join(directory, "vaults") };
const around = realSurroundings((text) => process.stderr.write(`${text}\n`));
const server = { url, pin, tlsCaPem: null };

if (!readProfile(home.profiles, "default")) {
  await registerAccount(home, { profile: "default", server, account, password, kdf: "default", invite: null }, around);
}
const profile = readProfile(home.profiles, "default");
if (!profile) throw new Error("no profile");

const { client } = await openProfile(home, profile, password, around, { keep: false });
try {
  const made = await client.generate({
    name: "example/token",
    type: "token",
    length: null,
    tags: ["example"],
    replace: true,
    where: null,
  });
  const value = new TextEncoder().encode("kept byte for byte");
  await client.store({ name: "example/note", type: "note", value, tags: [], where: null });
  const got = await client.get({ name: "example/note", version: null, reveal: true, fresh: true, save: false });
  const refs = [{ name: "example/token", version: null }];
  const [token] = await client.getMany({ refs, fresh: true, purpose: "export" });
  if (!token?.value || !got.value) throw new Error("no value");
  const items = [{ name: "copy", type: token.info.type, value: token.value, tags: [], createdAt: null }];
  const file = json.write(items);
  const imported = await client.importItems({
    items: json.read(file, { name: null }).items,
    prefix: "example/",
    dryRun: false,
    origin: "json",
    where: null,
  });
  const verified = await client.auditVerify();
  const summary = {
    type: made.info.type,
    equal: Buffer.compare(got.value, value) === 0,
    imported: imported.imported,
    entries: verified.size,
    ok: verified.ok,
  };
  process.stdout.write(`${JSON.stringify(summary)}\n`);
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = error.exit;
} finally {
  await client.close();
  password.fill(0);
}
