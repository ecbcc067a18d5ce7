import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { openJournal } from "../../src/enclave/journal.ts";
import { demandSince, noteRestore, RESTORED_FILE } from "../../src/enclave/restoring.ts";
import { enclavePaths } from "../../src/enclave/sealingkey.ts";
import type { SignedRequest } from "../../src/protocol/federation/request.ts";
import { enclaveWorld } from "../support/enclaveworld.ts";
import { codeOf } from "../support/entropyfaults.ts";
import { type EntropyWorld, entropyWorld } from "../support/entropyworld.ts";

/** What an enclave does with a journal that came from a backup (docs/protocol.md §8.8). */

let world: EntropyWorld;
beforeEach(async () => {
  world = await entropyWorld();
});
afterEach(() => world.close());

/** The note that a restore leaves, found at the next start. */
function restored(
  atMs: number,
  enclave: Pick<EntropyWorld, "journalPath" | "keys" | "enclave" | "restart"> = world,
): void {
  const { journalPath, keys } = enclave;
  const dir = join(dirname(journalPath), "server");
  const { directory } = enclavePaths(dir);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, RESTORED_FILE), "from a backup\n");
  enclave.enclave.close();
  const journal = openJournal(journalPath, keys.journalKey);
  noteRestore(dir, keys, journal, atMs);
  expect(existsSync(join(directory, RESTORED_FILE))).toBe(false);
  const size = readFileSync(journalPath).length;
  // the note is gone: nothing is written again
  noteRestore(dir, keys, journal, atMs + 1);
  expect(readFileSync(journalPath).length).toBe(size);
  journal.close();
  enclave.restart();
}

test("nothing of a ceremony from before is signed any more, its end neither; later ones go on", async () => {
  const before = await world.open({ n: 2 });
  await before.join(1);
  restored(world.nowMs);
  expect(await codeOf(before.join(2))).toBe("stale");
  world.nowMs += 2 * 3_600_000;
  for (const reason of ["absent", "closed", "failed"] as const)
    expect(await codeOf(before.ask({ kind: "abort", reason }))).toBe("stale");
  const after = await world.open({ n: 2 });
  expect((await after.finish()).stored?.record.version).toBe(1);
});

test("a freeze that participants have seen is not signed over other commitments, though the journal has forgotten it", async () => {
  const run = await world.open({ n: 3, change: { minimum: 2 } });
  await run.join(1);
  await run.join(2);
  const backup = readFileSync(world.journalPath);
  world.nowMs += 2 * 3_600_000;
  await run.freeze();
  // journal and transcript of before the freeze
  world.enclave.close();
  writeFileSync(world.journalPath, backup);
  restored(world.nowMs);
  const { manifest, entries } = run.transcript;
  const step = { kind: "freeze" as const, seed: run.seed };
  const cut = { manifest, entries: entries.slice(0, 2) };
  expect(await codeOf(run.ask(step, cut))).toBe("stale");
});

test("no attempt of a request from before begins, whose use may have been spent; a new one does", async () => {
  const federation = await enclaveWorld();
  try {
    const key = await federation.plant("ed25519");
    const [one] = federation.servers;
    if (!one) throw new Error("no server");
    const begin = (request: SignedRequest, attempt = 1) =>
      one.enclave.handle("begin", {
        evidence: federation.evidence(request, key, {}),
        order: federation.order(request, [1, 2], attempt),
        share: key.sealed.get(1) ?? null,
      });
    const before = federation.request(federation.signBody(key));
    const backup = readFileSync(one.journalPath);
    expect(await codeOf(begin(before))).toBe("ok");
    one.enclave.close();
    writeFileSync(one.journalPath, backup);
    restored(federation.nowMs, one);
    expect([await codeOf(begin(before)), await codeOf(begin(before, 2))]).toEqual(["stale", "stale"]);
    federation.nowMs += 1;
    expect(await codeOf(begin(federation.request(federation.signBody(key))))).toBe("ok");
  } finally {
    federation.close();
  }
});

test("of two restores the later one counts, whatever the clock says", () => {
  const since = (ms: number) => {
    const journal = openJournal(world.journalPath, world.keys.journalKey);
    try {
      demandSince(world.keys, journal, "request", ms);
      return "ok";
    } catch (error) {
      return (error as { code?: string }).code;
    } finally {
      journal.close();
    }
  };
  world.enclave.close();
  expect(since(1)).toBe("ok");
  world.restart();
  restored(5_000);
  expect([since(4_999), since(5_000), since(5_001)]).toEqual(["stale", "stale", "ok"]);
  restored(3_000);
  expect([since(4_999), since(5_001)]).toEqual(["stale", "ok"]);
  restored(6_000);
  expect(since(5_001)).toBe("stale");
});
