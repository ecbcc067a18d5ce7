import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Stored } from "../../src/enclave/storedvalue.ts";
import type { StoredKeyId } from "../../src/ids.ts";
import type { SignedEntry, Transcript } from "../../src/protocol/ceremony/model.ts";
import { bodyOf, codeOf, withEntries } from "../support/entropyfaults.ts";
import { type EntropyWorld, entropyWorld, type Run, type Step } from "../support/entropyworld.ts";

/** A parent that shows its enclave two histories of one ceremony, and wants both to end. */

const HOUR = 3_600_000;
let world: EntropyWorld;
beforeEach(async () => {
  world = await entropyWorld();
});
afterEach(() => world.close());

const abort = (reason: "absent" | "withheld" | "closed" | "failed") => ({ kind: "abort", reason }) as const;
const ask = (run: Run, step: Step, transcript?: Transcript) => codeOf(run.ask(step, transcript));
/** Everything that the enclave signs of a ceremony in one place: by its number, and what stands before it. */
function places(entries: readonly SignedEntry[]): Map<number, Set<string>> {
  const found = new Map<number, Set<string>>();
  for (const { entry, signature } of entries)
    found.set(entry.seq, (found.get(entry.seq) ?? new Set()).add(signature.toHex()));
  return found;
}

describe("two forks of a ceremony", () => {
  let run: Run;
  beforeEach(async () => {
    run = await world.open({ n: 3 });
    for (const index of [1, 2, 3]) await run.join(index);
  });

  test("in which different ones have revealed: the enclave blames those of one, whichever is asked first", async () => {
    await run.freeze();
    const frozen = run.transcript;
    await run.reveal(1);
    const one = run.transcript;
    const reveal = one.entries.at(-1);
    if (!reveal) throw new Error("nothing revealed");
    world.nowMs += 2 * HOUR;
    const { entry } = await run.ask(abort("withheld"), one);
    expect(bodyOf(entry, "abort").culprits).toEqual([2, 3]);
    const restarted = async () => {
      expect(await ask(run, abort("withheld"), frozen)).toBe("conflict");
      expect(await ask(run, abort("closed"), one)).toBe("conflict");
      expect((await run.ask(abort("withheld"), one)).entry).toEqual(entry);
    };
    await restarted();
    world.restart();
    world.nowMs += HOUR;
    await restarted();
  });

  test("of which one leaves out the freeze: it does not end", async () => {
    const open = run.transcript;
    await run.freeze();
    for (const reason of ["closed", "failed"] as const) expect(await ask(run, abort(reason), open)).toBe("conflict");
    world.restart();
    expect(await ask(run, abort("closed"), open)).toBe("conflict");
    expect(await ask(run, abort("closed"))).toBe("ok");
  });

  test("with the same commitments in another order, or frozen at another time: one of them is frozen", async () => {
    const other = withEntries(run.transcript, run.transcript.entries.slice(0, 1));
    const again = await world.open({ people: run.people });
    expect(again.ceremonyId).not.toBe(run.ceremonyId);
    // the enclave takes no note of commitments: 3 before 2
    const step = (index: number) => run.transcript.entries[index - 1]?.entry.body;
    const [second, third] = [step(2), step(3)];
    if (second?.kind !== "join" || third?.kind !== "join") throw new Error("no joins");
    const third2 = await run.ask(third, other);
    const second2 = await run.ask(second, withEntries(other, [...other.entries, third2.entry]));
    const turned = withEntries(other, [...other.entries, third2.entry, second2.entry]);
    const freeze = { kind: "freeze", seed: run.seed } as const;
    const first = await run.ask(freeze);
    expect(await ask(run, freeze, turned)).toBe("conflict");
    world.nowMs += 1_000;
    expect((await run.ask(freeze)).entry).toEqual(first.entry);
  });

  test("whatever is asked, freeze and end are signed once each", async () => {
    const signed: SignedEntry[] = [];
    const heads: Transcript[] = [run.transcript];
    await run.freeze();
    heads.push(run.transcript);
    for (const index of [1, 2, 3]) {
      await run.reveal(index);
      heads.push(run.transcript);
    }
    const steps: readonly Step[] = [
      { kind: "freeze", seed: run.seed },
      ...(["absent", "withheld", "closed", "failed"] as const).map(abort),
      { kind: "combine", openings: run.openings, before: null },
    ];
    for (const at of [0, 1, HOUR]) {
      world.nowMs += at;
      for (const transcript of heads.toReversed())
        for (const step of steps) {
          const answer = await run.ask(step, transcript).catch(() => null);
          if (answer) signed.push(answer.entry);
        }
      world.restart();
    }
    const ends = signed.filter(({ entry }) => entry.body.kind !== "freeze");
    expect(new Set(ends.map(({ signature }) => signature.toHex())).size).toBe(1);
    for (const same of places(signed).values()) expect(same.size).toBe(1);
  });
});

describe("the next version of a key", () => {
  let first: Stored;
  let keyId: StoredKeyId;
  beforeEach(async () => {
    const { stored } = await (await world.open({ n: 2 })).finish();
    if (!stored) throw new Error("nothing stored");
    [first, keyId] = [stored, stored.record.keyId];
  });
  const replacing = async () => {
    const run = await world.open({ n: 2, change: { replaces: keyId } });
    await run.toCombine();
    return run;
  };
  const made = async (run: Run, before: Stored): Promise<Stored> => {
    const { stored } = await run.combine(before);
    if (!stored) throw new Error("nothing stored");
    return stored;
  };

  test("is that after the one which the enclave itself has sealed, whatever its parent says", async () => {
    const run = await replacing();
    const said = { record: { ...first.record, version: 7 }, sealed: first.sealed };
    expect(await codeOf(run.combine(said))).toBe("integrity");
    const other = await (await world.open({ n: 2 })).finish();
    expect(await codeOf(run.combine(other.stored))).toBe("bad_input");
    expect(await codeOf(run.combine(null))).toBe("bad_input");
    const second = await made(run, first);
    expect([second.record.keyId, second.record.version]).toEqual([keyId, 2]);
    expect((await made(await replacing(), second)).record.version).toBe(3);
  });

  test("is made by one ceremony: no other one makes it from an older version that the parent still has", async () => {
    const [one, two] = [await replacing(), await replacing()];
    const second = await made(one, first);
    expect(await codeOf(two.combine(first))).toBe("conflict");
    world.restart();
    expect(await codeOf(two.combine(first))).toBe("conflict");
    const third = await made(await replacing(), second);
    expect(third.record.version).toBe(3);
    expect(await codeOf(two.combine(first))).toBe("stale");
    // what was signed is said again, also when the key has moved on
    const lost = withEntries(one.transcript, one.transcript.entries.slice(0, -1));
    const again = await one.ask({ kind: "combine", openings: one.openings, before: first }, lost);
    expect(again.entry).toEqual(one.transcript.entries.at(-1) ?? (null as never));
    // and it may still end
    expect(await codeOf(two.abort("failed"))).toBe("ok");
  });
});
