import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { decodeModel } from "../../src/client/model.ts";
import type { Link } from "../../src/client/session.ts";
import type { VaultBox } from "../../src/client/vaultbox.ts";
import type { UserId } from "../../src/ids.ts";
import { openVaultWithKey } from "../../src/protocol/vault.ts";
import type { ServerContext } from "../../src/server/context.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { addTestDevice, registerDevice, startTestServer } from "../support/harness.ts";
import { scratchDirectory } from "../support/scratch.ts";

/** An account with its devices as they are before a run: each run begins with a copy. */
export interface Template {
  /** The server's, over a store that is closed: a run brings its own. */
  readonly ctx: ServerContext;
  /** What a client knows of the server; its `post` is of no use any more. */
  readonly link: Link;
  readonly userId: UserId;
  readonly devices: number;
  /** Revision that the account has. */
  readonly revision: number;
  /** Later than anything in it. */
  readonly startMs: number;
  /** Copies the database. */
  database(path: string): void;
  /** Copies one device's vault and opens it. */
  vault(device: number, directory: string): VaultBox;
  end(): void;
}

const VAULT = "test.vault";

/** Opens the vault in a directory as a new process does that knows the key. */
export function openVaultIn(directory: string, key: Uint8Array): VaultBox {
  const path = join(directory, VAULT);
  const opened = openVaultWithKey(readFileSync(path), new Uint8Array(key));
  return { path, vault: opened.vault, model: decodeModel(opened.body) };
}

/** Registers an account by the real way, OPAQUE included, and adds devices to it. */
export async function makeTemplate(devices: number): Promise<Template> {
  const directory = scratchDirectory("keyhold-template-");
  const database = join(directory, "server.db");
  const server = await startTestServer({ path: database });
  const account = "simulated";
  const first = await registerDevice(server.link(), account, "the password");
  const all = [first];
  while (all.length < devices) all.push(await addTestDevice(server.link(), account, "the password"));
  const keys = all.map((device, number) => {
    cpSync(join(device.open.box.path, ".."), join(directory, `device-${number}`), { recursive: true });
    return new Uint8Array(device.open.box.vault.key);
  });
  const userId = first.open.box.model.owner;
  const row = await server.store.transaction((tx) => tx.account(userId));
  for (const device of all) await device.end();
  if (server.faults.length > 0) throw server.faults[0];
  await server.close();
  // what the log of the database holds goes into its file
  await (await openSqlite(database)).close();
  return {
    ctx: server.ctx,
    link: server.link(),
    userId,
    devices,
    revision: row?.state.state.revision ?? 0,
    startMs: Date.now() + 1_000,
    database: (path) => cpSync(database, path),
    vault(device, into) {
      cpSync(join(directory, `device-${device}`), into, { recursive: true });
      return openVaultIn(into, keys[device] ?? new Uint8Array(32));
    },
    end: () => rmSync(directory, { recursive: true, force: true }),
  };
}
