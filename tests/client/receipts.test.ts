import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { auditLink, type SaltedEntry } from "../../src/protocol/audit.ts";
import { random, registerDevice, startTestServer, type TestDevice } from "../support/harness.ts";
import { asking, rejected, reopened, storing, type Villain, villainOver } from "../support/hostile.ts";

const WHOLE = { keyId: null, action: null, fromMs: null, untilMs: null, requestId: null } as const;
const PASSWORD = "correct horse battery";
const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface World {
  readonly villain: Villain;
  readonly device: TestDevice;
  /** Rewrites the account's log in the database, chaining it anew. */
  rewrite(edit: (entries: readonly SaltedEntry[]) => readonly SaltedEntry[]): Promise<void>;
}

async function world(): Promise<World> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-test-"));
  const path = join(directory, "server.db");
  const server = await startTestServer({ path });
  const villain = villainOver(server);
  const device = await registerDevice(villain.link, "ada", PASSWORD);
  ends.push(async () => {
    await device.end();
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const { userId } = device.login;
  return {
    villain,
    device,
    async rewrite(edit) {
      const query = { ...WHOLE, after: 0, limit: 100_000 };
      const edited = edit(await server.store.transaction((tx) => tx.audit(userId, query)));
      const db = new Database(path);
      db.run("PRAGMA busy_timeout=5000");
      const account = Buffer.from(userId, "hex");
      db.run("DELETE FROM audit_entry WHERE user_id=?", [account]);
      db.run("UPDATE audit_head SET seq=0, link=zeroblob(32) WHERE user_id=?", [account]);
      db.close();
      let previous = new Uint8Array(32) as Uint8Array;
      for (const [i, old] of edited.entries()) {
        const item = { salt: old.salt, entry: { ...old.entry, seq: i + 1, previous } };
        previous = auditLink(item);
        const head = { seq: i + 1, link: previous };
        await server.store.transaction((tx) => tx.appendAudit(item, head, null));
      }
    },
  };
}

describe("receipts", () => {
  test("rewrite receipted reads and chain the log anew: every position that was seen is a mark", async () => {
    const { device, rewrite } = await world();
    await device.client.store(storing("x", "1"));
    for (let i = 0; i < 3; i++) await device.client.get(asking("x", { fresh: true }));
    await rewrite((entries) => {
      const reads = entries.filter(({ entry }) => entry.action === "secret.get");
      const [first] = reads;
      if (!first) throw new Error("no read");
      const filler = { salt: random(32), entry: { ...first.entry, action: "session.check", keyId: null } };
      return [...entries.filter((item) => item !== first), filler, filler];
    });
    await rejected(device.client.auditVerify(), "integrity");
  });

  test("cut what a process that only read was shown: the next process knows", async () => {
    const { villain, device, rewrite } = await world();
    await device.client.store(storing("x", "1"));
    const reader = await reopened(villain.link, device, "ada", PASSWORD);
    for (let i = 0; i < 3; i++) await reader.client.get(asking("x", { fresh: true }));
    await reader.client.close();
    await rewrite((entries) => entries.filter(({ entry }) => entry.action !== "secret.get"));
    const next = await reopened(villain.link, device, "ada", PASSWORD);
    await rejected(next.client.auditVerify(), "integrity");
    await next.client.close();
  });

  test("the log verifies itself before the receipts are too many", async () => {
    const { device } = await world();
    await device.client.store(storing("x", "1"));
    for (let i = 0; i < 520; i++) await device.client.get(asking("x", { fresh: true }));
    const bound = device.open.box.model.bound;
    expect(bound?.verified.seq).toBeGreaterThan(500);
    expect(bound?.receipts.length).toBeLessThan(100);
  }, 60_000);
});
