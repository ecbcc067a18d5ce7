import { describe, expect, test } from "bun:test";
import { blameHolds, payloadOf } from "../../../src/protocol/federation/blame.ts";
import { groupOf } from "../../../src/protocol/federation/groups.ts";
import type { Payload, SignedMessage } from "../../../src/protocol/federation/message.ts";
import { assembleCertificate } from "../../../src/protocol/federation/transcript.ts";
import { allName, flip, holds, LIAR, lying, play, ROSTER, start, without } from "../../support/ceremonyliar.ts";
import {
  ceremonyWorld,
  confirmedOf,
  culpritsOf,
  generateTerms,
  lie,
  roundOf,
  runCeremony,
} from "../../support/ceremonyworld.ts";

describe("messages that are nobody's", () => {
  test("corrupt ones change nothing: without the true one it waits, with it it goes on", async () => {
    for (const round of ["commit", "echo", "share", "complaint"] as const) {
      const broken = (m: SignedMessage): SignedMessage => ({ ...m, signature: flip(m.signature) });
      const hit = (m: SignedMessage) => roundOf(m) === round && m.message.from === LIAR;
      const waits = await play(() => (m) => (hit(m) ? [broken(m)] : [m]));
      expect(without(waits.run, LIAR)).toEqual([]);
      const goesOn = await play(() => (m) => (hit(m) ? [broken(m), m, broken(m)] : [m]));
      expect(confirmedOf(goesOn.run).size).toBe(3);
    }
  });

  test("those of another attempt, order, request, sender or receiver are passed over", async () => {
    const { world, terms } = start();
    const other = await runCeremony(world, generateTerms(world, "p256", ROSTER));
    const second = await runCeremony(world, { ...terms, order: { ...terms.order, attempt: 2 } });
    const foreign = [...other.said, ...second.said];
    const run = await runCeremony(world, terms, {
      tamper: (m) => [
        ...foreign,
        lie(world, m, m.message.payload, { orderHash: new Uint8Array(32) }),
        lie(world, m, m.message.payload, { attempt: 7 }),
        lie(world, m, m.message.payload, { to: m.message.to === 0 ? 3 : 0 }),
        { ...m, message: { ...m.message, from: 200 } },
        { ...m, message: { ...m.message, from: m.message.from === 1 ? 3 : 1 } },
        lie(world, m, { round: "nonces", hiding: new Uint8Array(33), binding: new Uint8Array(33) }),
        m,
      ],
    });
    expect(confirmedOf(run).size).toBe(3);
    expect(culpritsOf(run)).toEqual([]);
  });

  test("a member that is not in the roster is not heard", async () => {
    const world = ceremonyWorld([1, 2, 3, 4, 5], 3);
    const terms = generateTerms(world, "p256", [1, 2, 3, 4]);
    const run = await runCeremony(world, terms, {
      tamper: (m) => [lie(world, m, m.message.payload, { from: 5 }), m],
    });
    expect(confirmedOf(run).size).toBe(4);
  });

  test("late ones do not change what is done", async () => {
    const { world, terms } = start();
    const run = await runCeremony(world, terms);
    const [commit] = run.said.filter((m) => roundOf(m) === "commit" && m.message.from === LIAR);
    if (!commit) throw new Error("no commit");
    const forged = lie(world, commit, {
      round: "commit",
      commitments: [],
      proof: new Uint8Array(0),
      sealing: new Uint8Array(32),
    });
    const step = await run.ceremonies.get(1)?.receive([...run.said, forged]);
    expect(step?.outcome).toMatchObject({ result: "confirmed" });
  });
});

describe("silence", () => {
  test("of one server in any round names nobody and makes no certificate", async () => {
    for (const round of ["commit", "echo", "share", "complaint"] as const) {
      const { run, terms } = await play(() => (m) => (roundOf(m) === round && m.message.from === LIAR ? [] : [m]));
      expect(without(run, LIAR)).toEqual([]);
      expect(assembleCertificate(terms, [...confirmedOf(run).values()], run.said)).toBeNull();
    }
  });

  test("of a server that never starts", async () => {
    const { world, terms } = start();
    const run = await runCeremony(world, terms, { silent: [LIAR] });
    expect(run.outcomes.size).toBe(0);
    const again = await runCeremony(world, { ...terms, order: { ...terms.order, attempt: 2 } });
    expect(confirmedOf(again).size).toBe(3);
  });
});

describe("first messages", () => {
  const group = groupOf("p256");
  const g = group.encodePoint(group.base);

  test("with a wrong proof", async () => {
    const { run } = await play((w) => lying(w, "commit", (c) => ({ ...c, proof: flip(c.proof, 40) })));
    allName(run, "bad_proof");
  });

  test("with the proof of another server", async () => {
    const { world, terms } = start();
    const honest = await runCeremony(world, { ...terms, order: { ...terms.order, attempt: 2 } });
    const stolen = payloadOf(
      honest.said.find((m) => roundOf(m) === "commit" && m.message.from === 1),
      "commit",
    );
    if (!stolen) throw new Error("no commit");
    const { commitments, proof } = stolen;
    const run = await runCeremony(world, terms, {
      tamper: lying(world, "commit", (c) => ({ ...c, commitments, proof })),
    });
    holds(terms, run);
    allName(run, "bad_proof");
  });

  test("with too few, too many, malformed or foreign commitments, or a key that nothing can be sealed to", async () => {
    type Commit = Extract<Payload, { round: "commit" }>;
    const changes: readonly ((c: Commit) => Commit)[] = [
      (c) => ({ ...c, commitments: c.commitments.slice(1) }),
      (c) => ({ ...c, commitments: [] }),
      (c) => ({ ...c, commitments: [...c.commitments, g] }),
      (c) => ({ ...c, commitments: c.commitments.map(() => new Uint8Array(33)) }),
      (c) => ({ ...c, commitments: c.commitments.map((one) => one.subarray(1)) }),
      (c) => ({ ...c, sealing: new Uint8Array(32) }),
    ];
    for (const change of changes) {
      const { run } = await play((w) => lying(w, "commit", change));
      allName(run, "bad_commitments");
    }
  });

  test("with a point of order eight in it", async () => {
    const world = ceremonyWorld(ROSTER, 2);
    const terms = generateTerms(world, "ed25519", ROSTER);
    const torsion = Uint8Array.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    const tamper = lying(world, "commit", (c) => ({ ...c, commitments: [c.commitments[0] ?? torsion, torsion] }));
    const run = await runCeremony(world, terms, { tamper });
    holds(terms, run);
    allName(run, "bad_commitments");
  });
});

describe("equivocation", () => {
  test("of a first message is caught before any share is sent, and proved once both versions meet", async () => {
    const { world, terms } = start();
    const versions = new Map<string, SignedMessage>();
    const split = lying(world, "commit", (c, m, to) => {
      const payload = to === 1 ? c : { ...c, sealing: new Uint8Array(32).fill(9) };
      const forged = lie(world, m, payload);
      versions.set(`${to}`, forged);
      return payload;
    });
    const run = await runCeremony(world, terms, { tamper: split });
    holds(terms, run);
    expect(run.said.filter((m) => roundOf(m) === "share" && m.message.from !== LIAR)).toEqual([]);
    expect(confirmedOf(run).size).toBe(0);
    expect(run.outcomes.get(1)).toEqual({ result: "failed", culprits: [] });
    const step = await run.ceremonies.get(1)?.receive([...versions.values()]);
    expect(step?.outcome).toMatchObject({ result: "failed", culprits: [{ index: LIAR, reason: "equivocation" }] });
    const [culprit] = step?.outcome?.result === "failed" ? step.outcome.culprits : [];
    expect(culprit && blameHolds(terms, culprit)).toBe(true);
  });

  test("in every round, in one ear: the two messages are the proof", async () => {
    const others: Record<"commit" | "echo" | "share" | "complaint", Payload> = {
      commit: { round: "commit", commitments: [], proof: new Uint8Array(0), sealing: new Uint8Array(32).fill(9) },
      echo: { round: "echo", seen: [] },
      share: { round: "share", sealed: new Uint8Array(80) },
      complaint: { round: "complaint", accused: [1] },
    };
    // the last message that is awaited ends the ceremony: the other one must be there before
    const pair = (forged: SignedMessage, m: SignedMessage) => (roundOf(m) === "complaint" ? [forged, m] : [m, forged]);
    for (const round of ["commit", "echo", "share", "complaint"] as const) {
      const { run } = await play(
        (w) => (m) => (m.message.from === LIAR && roundOf(m) === round ? pair(lie(w, m, others[round]), m) : [m]),
      );
      allName(run, "equivocation");
    }
  });

  test("under this server's own name stops it: somebody else has its key", async () => {
    const { world, terms } = start();
    const run = await runCeremony(world, terms, {
      tamper: (m, to) =>
        roundOf(m) === "commit" && m.message.from === LIAR && to === 1
          ? [m, lie(world, m, { round: "complaint", accused: [3] }, { from: 1 })]
          : [m],
    });
    expect(run.outcomes.get(1)).toMatchObject({ result: "failed", culprits: [{ index: 1, reason: "equivocation" }] });
  });

  test("of complaints gives no two certificates", async () => {
    const { run, terms } = await play((w) =>
      lying(w, "complaint", (c, _, to) => ({ ...c, accused: to === 1 ? [3] : [] })),
    );
    expect(assembleCertificate(terms, [...confirmedOf(run).values()], run.said)).toBeNull();
  });
});

describe("echoes", () => {
  test("that contradict what their sender said itself, or leave somebody out, name the sender", async () => {
    type Echo = Extract<Payload, { round: "echo" }>;
    const changes: readonly ((e: Echo) => Echo)[] = [
      (e) => ({ ...e, seen: e.seen.map((s) => (s.index === LIAR ? { ...s, hash: flip(s.hash) } : s)) }),
      (e) => ({ ...e, seen: e.seen.slice(1) }),
      (e) => ({ ...e, seen: e.seen.toReversed() }),
      (e) => ({ ...e, seen: [...e.seen, { index: 9, hash: new Uint8Array(32) }] }),
    ];
    for (const change of changes) {
      const { run } = await play((w) => lying(w, "echo", change));
      allName(run, "bad_echo");
    }
  });

  test("that differ about somebody else end the attempt without a name", async () => {
    const { run } = await play((w) =>
      lying(w, "echo", (e) => ({ ...e, seen: e.seen.map((s) => (s.index === 3 ? { ...s, hash: flip(s.hash) } : s)) })),
    );
    expect(without(run, LIAR)).toEqual([
      { result: "failed", culprits: [] },
      { result: "failed", culprits: [] },
    ]);
    expect(run.said.some((m) => roundOf(m) === "share" && m.message.from !== LIAR)).toBe(false);
  });
});
