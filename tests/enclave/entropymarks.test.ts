import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { openJournal } from "../../src/enclave/journal.ts";
import type { SignedEntry, Transcript } from "../../src/protocol/ceremony/model.ts";
import { signEntry } from "../../src/protocol/ceremony/records.ts";
import { bodyOf, codeOf, withEntries } from "../support/entropyfaults.ts";
import { type EntropyWorld, entropyWorld, joinOf, OUTPUTS, type Run, revealOf } from "../support/entropyworld.ts";

const HOUR = 3_600_000;
let world: EntropyWorld;
let run: Run;
beforeEach(async () => {
  world = await entropyWorld();
  run = await world.open({ n: 3, change: { minimum: 2 } });
});
afterEach(() => world.close());

const joinStep = (index: number) =>
  ({ kind: "join", join: joinOf(run.ceremonyId, run.person(index), "totp") }) as const;
const freezeStep = () => ({ kind: "freeze", seed: run.seed }) as const;
const combineStep = () => ({ kind: "combine", openings: run.openings, before: null }) as const;
async function revealStep(index: number, opening?: Uint8Array) {
  const t1 = run.state.t1 ?? new Uint8Array(32);
  const change = opening ? { opening } : {};
  const made = await revealOf(run.ceremonyId, run.person(index), t1, run.draft.key, world.random, change);
  return { kind: "reveal", ...made, key: world.key } as const;
}
const ask = (step: Parameters<Run["ask"]>[0], transcript?: Transcript) => codeOf(run.ask(step, transcript));
const first = (n: number) => withEntries(run.transcript, run.transcript.entries.slice(0, n));
const marksIn = (path: string) =>
  readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => /"scope":"(freeze|end)"/.test(line)).length;

describe("a freeze", () => {
  beforeEach(async () => {
    await run.join(1);
    await run.join(2);
  });

  test("is one: with other commitments there is no second one, restart or not", async () => {
    const withTwo = run.transcript;
    const three = await run.ask(joinStep(3));
    const withThree = withEntries(withTwo, [...withTwo.entries, three.entry]);
    expect(await ask(freezeStep(), withTwo)).toBe("ok");
    expect(await ask(freezeStep(), withThree)).toBe("conflict");
    world.restart();
    expect(await ask(freezeStep(), withThree)).toBe("conflict");
    expect(await ask(freezeStep(), withTwo)).toBe("ok");
  });

  test("again, after its answer was lost: the same entry byte for byte, and a mark is written once", async () => {
    const lost = await run.ask(freezeStep());
    world.restart();
    world.nowMs += 5_000;
    const again = await run.append(freezeStep());
    expect(again.entry).toEqual(lost.entry);
    expect(marksIn(world.journalPath)).toBe(1);
    await run.finish();
    expect(run.state.status).toBe("stored");
  });

  test("whose answer was lost takes no more commitments, though the transcript does not say so", async () => {
    await run.ask(freezeStep());
    expect(await ask(joinStep(3))).toBe("stale");
    world.restart();
    expect(await ask(joinStep(3))).toBe("stale");
    expect(await ask(freezeStep())).toBe("ok");
  });

  test("needs the minimum, and this ceremony's own seed", async () => {
    const other = await world.open();
    expect(await ask(freezeStep(), first(1))).toBe("conflict");
    expect(await ask({ kind: "freeze", seed: other.seed })).toBe("integrity");
    expect(marksIn(world.journalPath)).toBe(0);
  });

  test("does not come after an abort", async () => {
    await run.ask({ kind: "abort", reason: "closed" });
    expect(await ask(freezeStep())).toBe("stale");
    expect(await ask(joinStep(3))).toBe("stale");
  });
});

describe("an end", () => {
  beforeEach(async () => {
    for (const index of [1, 2, 3]) await run.join(index);
    await run.freeze();
    await run.reveal(1);
    await run.reveal(2);
  });

  test("after an abort there is no result, no reveal, no lie and no other abort; the same may be said again", async () => {
    const before = run.transcript;
    await run.reveal(3);
    const all = run.transcript;
    const abort = { kind: "abort", reason: "closed" } as const;
    await run.ask(abort, before);
    const restarted = async () => {
      expect(await ask(combineStep(), all)).toBe("conflict");
      expect(await ask(await revealStep(3), before)).toBe("stale");
      expect(await ask(abort, before)).toBe("ok");
      expect(await ask(abort, all)).toBe("conflict");
      expect(await ask({ kind: "abort", reason: "failed" }, before)).toBe("conflict");
    };
    await restarted();
    world.restart();
    await restarted();
    expect(marksIn(world.journalPath)).toBe(2);
  });

  test("after a result there is no abort; combining again gives the same result byte for byte", async () => {
    const before = run.transcript;
    await run.reveal(3);
    const lost = await run.ask(combineStep());
    const restarted = async () => {
      expect(await ask({ kind: "abort", reason: "failed" })).toBe("conflict");
      expect(await ask({ kind: "abort", reason: "closed" }, before)).toBe("conflict");
      const lie = await revealStep(3, world.random.bytes(32));
      expect(await ask(lie, before)).toBe("conflict");
    };
    await restarted();
    world.restart();
    await restarted();
    world.nowMs += HOUR;
    expect(await ask({ kind: "abort", reason: "withheld" }, before)).toBe("conflict");
    const again = await run.append(combineStep());
    expect(again.entry).toEqual(lost.entry);
    expect(again.stored?.record.keyId).toBe(lost.stored?.record.keyId ?? ("" as never));
    expect(marksIn(world.journalPath)).toBe(2);
  });

  test("after a lie the honest opening comes too late", async () => {
    const before = run.transcript;
    const lie = await revealStep(3, world.random.bytes(32));
    const said = await run.ask(lie);
    expect(bodyOf(said.entry, "abort").culprits).toEqual([3]);
    world.restart();
    expect(await ask(await revealStep(3), before)).toBe("stale");
    expect(await ask(await revealStep(3, world.random.bytes(32)), before)).toBe("conflict");
    // also when the time for reveals is over meanwhile, and the participant would have withheld
    world.nowMs += 2 * HOUR;
    expect(await ask({ kind: "abort", reason: "withheld" }, before)).toBe("conflict");
    expect((await run.ask(lie, before)).entry).toEqual(said.entry);
  });

  test("a transcript with its end takes nothing more", async () => {
    await run.reveal(3);
    await run.combine();
    for (const step of [combineStep(), joinStep(3), freezeStep(), { kind: "abort", reason: "failed" } as const]) {
      expect(await ask(step)).toBe("conflict");
    }
  });

  test("a result and an abort asked for at once: one of them is signed", async () => {
    await run.reveal(3);
    const abort = { kind: "abort", reason: "failed" } as const;
    const codes = await Promise.all([ask(combineStep()), ask(abort), ask(combineStep())]);
    expect(codes).toEqual(["conflict", "ok", "conflict"]);
  });

  test("what time ends needs the time", async () => {
    expect(await ask({ kind: "abort", reason: "withheld" })).toBe("conflict");
    expect(await ask({ kind: "abort", reason: "absent" })).toBe("conflict");
    world.nowMs += HOUR;
    const { entry } = await run.ask({ kind: "abort", reason: "withheld" });
    expect(bodyOf(entry, "abort")).toMatchObject({ reason: "withheld", culprits: [3], reveal: null });
  });
});

test("too few in time: those who stayed away are named", async () => {
  await run.join(2);
  expect(await ask({ kind: "abort", reason: "absent" })).toBe("conflict");
  world.nowMs += HOUR;
  const { entry } = await run.ask({ kind: "abort", reason: "absent" });
  expect(bodyOf(entry, "abort")).toMatchObject({ reason: "absent", culprits: [1, 3], reveal: null });
});

test("a restart between any two steps changes nothing", async () => {
  const restarted = async (work: Promise<unknown>) => {
    await work;
    world.restart();
  };
  for (const index of [1, 2, 3]) await restarted(run.join(index));
  await restarted(run.freeze());
  for (const index of [3, 1, 2]) await restarted(run.reveal(index, { suite: index === 1 ? "rsa-oaep" : "hpke" }));
  await restarted(run.combine());
  expect(run.state.status).toBe("stored");
});

describe("a transcript that this enclave has not signed so", () => {
  let transcript: Transcript;
  let entries: readonly SignedEntry[];
  let at: (index: number) => SignedEntry;
  beforeEach(async () => {
    for (const index of [1, 2, 3]) await run.join(index);
    await run.freeze();
    await run.reveal(1);
    ({ transcript } = run);
    ({ entries } = transcript);
    at = (index) => {
      const found = entries[index];
      if (!found) throw new Error("no such entry");
      return found;
    };
  });
  const refused = async (changed: Transcript) => {
    for (const step of [await revealStep(2), { kind: "abort", reason: "failed" } as const, freezeStep()]) {
      expect(await ask(step, changed)).toBe("integrity");
    }
  };

  test("two entries exchanged, one left out, one twice", async () => {
    await refused(withEntries(transcript, [at(1), at(0), ...entries.slice(2)]));
    await refused(withEntries(transcript, entries.toSpliced(1, 1)));
    await refused(withEntries(transcript, [at(0), ...entries]));
  });

  test("another commitment in a place", async () => {
    const other = await world.open({ people: run.people, change: { minimum: 2 } });
    await other.join(1);
    const [foreign] = other.transcript.entries;
    if (!foreign) throw new Error("nothing joined");
    await refused(withEntries(transcript, [foreign, ...entries.slice(1)]));
    await refused(withEntries(other.transcript, entries));
    const swapped = { ...at(0), entry: { ...at(0).entry, body: at(1).entry.body } };
    await refused(withEntries(transcript, [swapped, ...entries.slice(1)]));
  });

  test("a newest entry that somebody else signed", async () => {
    const head = at(entries.length - 1);
    const mallory = run.person(3).signer;
    await refused(withEntries(transcript, [...entries.slice(0, -1), signEntry(mallory, run.ceremonyId, head.entry)]));
    await refused(withEntries(transcript, [...entries.slice(0, -1), { ...head, signature: new Uint8Array(64) }]));
    const later = { ...head, entry: { ...head.entry, atMs: head.entry.atMs + 1 } };
    await refused(withEntries(transcript, [...entries.slice(0, -1), later]));
  });

  test("another enclave's ceremony, whole and well signed", async () => {
    const other = await entropyWorld(2);
    try {
      const foreign = await other.open();
      await foreign.join(1);
      await refused(foreign.transcript);
      await refused(withEntries(foreign.transcript, []));
      await refused(withEntries(transcript, foreign.transcript.entries));
    } finally {
      other.close();
    }
  });

  test("a manifest with anything changed", async () => {
    const { manifest, signature } = transcript.manifest;
    const changed = (change: object): Transcript => ({
      ...transcript,
      manifest: { manifest: { ...manifest, ...change }, signature },
    });
    await refused(changed({ openedAtMs: manifest.openedAtMs + 1 }));
    await refused(changed({ seedHash: new Uint8Array(32) }));
    await refused(changed({ draft: { ...manifest.draft, output: OUTPUTS.ed25519 } }));
    await refused(changed({ draft: { ...manifest.draft, policy: { collect: "organiser", quorum: 0 } } }));
  });

  test("one that was cut off goes another way only as far as nothing was frozen", async () => {
    // the enclave keeps no entries: of what was not marked, its parent may choose; T1 holds it after the freeze
    expect(await ask(joinStep(3), first(2))).toBe("stale");
    expect(await ask(freezeStep(), first(2))).toBe("conflict");
    expect(await ask(freezeStep(), first(3))).toBe("ok");
    expect(await ask(await revealStep(2), first(3))).toBe("conflict");
  });
});

test("marks of ceremonies stand in the journal beside what older ones wrote", async () => {
  const { journalKey } = world.keys;
  for (const index of [1, 2, 3]) await run.join(index);
  await run.freeze();
  world.enclave.close();
  const journal = openJournal(world.journalPath, journalKey);
  const mark = { scope: "federation", id: run.ceremonyId, number: 1, hash: new Uint8Array(32).fill(1) } as never;
  journal.mark(mark);
  journal.close();
  const again = openJournal(world.journalPath, journalKey);
  expect(again.marked("freeze", run.ceremonyId)?.hash).toEqual(run.state.head.hash);
  expect(again.marked("federation", run.ceremonyId as never)?.number).toBe(1);
  again.close();
});
