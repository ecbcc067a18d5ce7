import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { blameHolds, payloadOf, shareContext } from "../../../src/protocol/federation/blame.ts";
import { certificateHash, signCertificate } from "../../../src/protocol/federation/certificate.ts";
import { groupOf } from "../../../src/protocol/federation/groups.ts";
import type { Culprit, Payload, Round, SignedMessage } from "../../../src/protocol/federation/message.ts";
import { planCeremony } from "../../../src/protocol/federation/plan.ts";
import { proveScalar } from "../../../src/protocol/federation/proof.ts";
import { assembleCertificate, confirmCulprits, transcriptHash } from "../../../src/protocol/federation/transcript.ts";
import { allName, both, flip, holds, LIAR, lying, lyingShare, play, start } from "../../support/ceremonyliar.ts";
import { type CeremonyWorld, confirmedOf, lie, roundOf, runCeremony, sharesOf } from "../../support/ceremonyworld.ts";
import { seeded } from "../../support/seeded.ts";

describe("shares", () => {
  const one = groupOf("p256").encodeScalar(1n);

  test("a lying share whose dealer lays the true one open is made good", async () => {
    const { run, terms } = await play((w) => lyingShare(w, one));
    expect(run.said.filter((m) => roundOf(m) === "reveal").map((m) => m.message.from)).toEqual([LIAR]);
    expect(confirmedOf(run).size).toBe(3);
    const made = assembleCertificate(terms, [...confirmedOf(run).values()], run.said);
    expect(made?.signatures.length).toBe(3);
    const plan = planCeremony(terms);
    const unrevealed = run.said.filter((m) => roundOf(m) !== "reveal");
    expect(made?.certificate.transcript).toEqual(transcriptHash(plan, run.said));
    expect(made?.certificate.transcript).not.toEqual(transcriptHash(plan, unrevealed));
  });

  test("a sealed one that cannot be opened is complained about too", async () => {
    const { run } = await play(
      (w) => (m) =>
        roundOf(m) === "share" && m.message.from === LIAR && m.message.to === 1
          ? [lie(w, m, { round: "share", sealed: new Uint8Array(80) })]
          : [m],
    );
    expect(run.said.find((m) => roundOf(m) === "complaint" && m.message.from === 1)?.message.payload).toEqual({
      round: "complaint",
      accused: [LIAR],
    });
    expect(confirmedOf(run).size).toBe(3);
  });

  test("a dealer that lies again when accused is named by all", async () => {
    for (const bad of [one, new Uint8Array(32), new Uint8Array(32).fill(255)]) {
      const { run } = await play((w) =>
        both(
          lyingShare(w, one),
          lying(w, "reveal", () => ({ round: "reveal", shares: [{ to: 1, share: bad }] })),
        ),
      );
      allName(run, "bad_share");
    }
  });

  test("a dealer that answers another question than was asked is named by all", async () => {
    const { run } = await play((w) =>
      both(
        lyingShare(w, one),
        lying(w, "reveal", (r) => ({ ...r, shares: r.shares.map((s) => ({ ...s, to: 3 })) })),
      ),
    );
    allName(run, "bad_share");
  });

  test("a false complaint clears the accused and costs one share of the accuser's own", async () => {
    const { run } = await play((w) => lying(w, "complaint", () => ({ round: "complaint", accused: [1] })));
    const reveal = run.said.find((m) => roundOf(m) === "reveal" && m.message.from === 1);
    expect(payloadOf(reveal, "reveal")?.shares.map((s) => s.to)).toEqual([LIAR]);
    // the liar's own view is without its complaint, so only the others agree
    expect([...confirmedOf(run).keys()]).toEqual([1, 2, 3]);
    const views = [1, 3]
      .map((i) => confirmedOf(run).get(i)?.certificate)
      .flatMap((c) => (c ? [certificateHash(c).toHex()] : []));
    expect(new Set(views).size).toBe(1);
  });

  test("complaints about oneself, about nobody and about strangers count for nothing", async () => {
    const { run } = await play((w) => lying(w, "complaint", () => ({ round: "complaint", accused: [LIAR, 9, 255] })));
    expect(run.said.some((m) => roundOf(m) === "reveal")).toBe(false);
    expect(confirmedOf(run).size).toBe(3);
  });

  test("a reveal that nobody asked for is in no certificate", async () => {
    const { run, terms } = await play(
      (w) => (m, to) =>
        roundOf(m) === "complaint" && m.message.from === LIAR && to === 1
          ? [lie(w, m, { round: "reveal", shares: [{ to: 1, share: one }] }), m]
          : [m],
    );
    expect(assembleCertificate(terms, [...confirmedOf(run).values()], run.said)?.signatures.length).toBe(3);
  });
});

describe("confirmations", () => {
  test("with a wrong proof or signature do not count, and name their sender", async () => {
    const { world, terms } = start();
    const run = await runCeremony(world, terms);
    const certificates = [...confirmedOf(run).values()];
    const certificate = certificates[0]?.certificate;
    if (!certificate) throw new Error("no certificate");
    type Confirm = Extract<Payload, { round: "confirm" }>;
    const stolen = payloadOf(
      run.said.find((m) => roundOf(m) === "confirm" && m.message.from === 1),
      "confirm",
    );
    const changes: readonly ((c: Confirm) => Confirm)[] = [
      (c) => ({ ...c, proof: flip(c.proof, 50) }),
      (c) => ({ ...c, proof: new Uint8Array(0) }),
      (c) => ({ ...c, proof: stolen?.proof ?? c.proof }),
      (c) => ({ ...c, signature: flip(c.signature) }),
      (c) => ({ ...c, signature: stolen?.signature ?? c.signature }),
    ];
    expect(assembleCertificate(terms, certificates, run.said)).not.toBeNull();
    expect(confirmCulprits(terms, certificate, run.said)).toEqual([]);
    for (const change of changes) {
      const said = run.said.map((m) => {
        const confirm = payloadOf(m, "confirm");
        return confirm && m.message.from === LIAR ? lie(world, m, change(confirm)) : m;
      });
      expect(assembleCertificate(terms, certificates, said)).toBeNull();
      const culprits = confirmCulprits(terms, certificate, said);
      expect(culprits).toMatchObject([{ index: LIAR, reason: "bad_proof" }]);
      const [culprit] = culprits;
      if (!culprit) throw new Error("nobody");
      expect(blameHolds(terms, culprit, certificate)).toBe(true);
      expect(blameHolds(terms, culprit)).toBe(false);
    }
  });

  test("a certificate that is not this ceremony's is not assembled, whoever signs it", async () => {
    const { world, terms } = start();
    const run = await runCeremony(world, terms);
    const certificate = confirmedOf(run).get(1)?.certificate;
    if (!certificate) throw new Error("no certificate");
    const forged = [
      { ...certificate, holders: [2] },
      { ...certificate, threshold: 1 },
      { ...certificate, publicKey: certificate.commitments[1] ?? certificate.publicKey },
      { ...certificate, generation: 1 },
      { ...certificate, owner: new Uint8Array(32) },
      { ...certificate, attempt: 2 },
      { ...certificate, transcript: new Uint8Array(32) },
    ];
    for (const view of forged) expect(assembleCertificate(terms, [{ certificate: view }], run.said)).toBeNull();
    expect(
      assembleCertificate(
        terms,
        [...forged, certificate].map((c) => ({ certificate: c })),
        run.said,
      ),
    ).not.toBeNull();
    // one that makes do with the liar alone, which signs it and proves its share of it
    const signer = world.signers.get(LIAR);
    const share = sharesOf(run).get(LIAR);
    const confirm = run.said.find((m) => roundOf(m) === "confirm" && m.message.from === LIAR);
    if (!signer || !share || !confirm) throw new Error("no liar");
    const alone = { ...certificate, holders: [LIAR], threshold: 1 };
    const context = shareContext(alone, LIAR);
    const lone = lie(world, confirm, {
      round: "confirm",
      certificateHash: certificateHash(alone),
      signature: signCertificate(signer, LIAR, alone).signature,
      proof: proveScalar(groupOf("p256"), share, context, (n) => world.random.bytes(n)),
    });
    expect(confirmCulprits(terms, alone, [lone])).toEqual([]);
    expect(assembleCertificate(terms, [{ certificate: alone }], [lone])).toBeNull();
    const two = run.said.filter((m) => m.message.from !== 3);
    expect(assembleCertificate(terms, [{ certificate }], two)).toBeNull();
  });
});

describe("evidence", () => {
  test("of nothing, of one message twice, of honest messages, of others' or of another attempt proves nothing", async () => {
    const { world, terms } = start();
    const run = await runCeremony(world, terms);
    const other = await runCeremony(world, { ...terms, order: { ...terms.order, attempt: 2 } });
    const of = (round: Round, from: number, said = run.said) =>
      said.filter((m) => roundOf(m) === round && m.message.from === from);
    const reasons = ["equivocation", "bad_proof", "bad_commitments", "bad_share", "bad_partial", "bad_echo"] as const;
    const all = [...of("commit", 1), ...of("echo", 1), ...of("share", 1), ...of("complaint", 1), ...of("confirm", 1)];
    for (const reason of reasons) {
      for (const evidence of [
        [],
        all,
        [...of("commit", 1), ...of("commit", 1)],
        of("share", 1),
        [...of("commit", 1), ...of("commit", 1, other.said)],
        [...of("commit", 2), ...of("commit", 3)],
      ])
        expect(blameHolds(terms, { index: 1, reason, evidence })).toBe(false);
    }
    const [commit] = of("commit", 1);
    if (!commit) throw new Error("no commit");
    const second = lie(world, commit, {
      round: "commit",
      commitments: [],
      proof: new Uint8Array(0),
      sealing: new Uint8Array(32),
    });
    const proven: Culprit = { index: 1, reason: "equivocation", evidence: [commit, second] };
    expect(blameHolds(terms, proven)).toBe(true);
    expect(blameHolds(terms, { ...proven, index: 2 })).toBe(false);
    expect(blameHolds(terms, { ...proven, index: 9 })).toBe(false);
    expect(blameHolds({ ...terms, order: { ...terms.order, attempt: 2 } }, proven)).toBe(false);
    const forged = { ...second, signature: flip(second.signature) };
    expect(blameHolds(terms, { ...proven, evidence: [commit, forged] })).toBe(false);
    expect(blameHolds(terms, { index: 1, reason: "bad_commitments", evidence: [second] })).toBe(true);
  });
});

describe("any one liar and any network", () => {
  const mutated = (world: CeremonyWorld, m: SignedMessage, how: number): SignedMessage => {
    const { payload } = m.message;
    switch (payload.round) {
      case "commit":
        return lie(
          world,
          m,
          how % 2 ? { ...payload, proof: flip(payload.proof, 40) } : { ...payload, sealing: world.random.bytes(32) },
        );
      case "echo":
        return lie(world, m, {
          ...payload,
          seen: payload.seen.map((s, i) => (i === how % 3 ? { ...s, hash: flip(s.hash) } : s)),
        });
      case "share":
        return lie(world, m, { ...payload, sealed: flip(payload.sealed, how % 80) });
      case "complaint":
        return lie(world, m, { ...payload, accused: [1 + (how % 4)] });
      case "reveal":
        return lie(world, m, { ...payload, shares: payload.shares.map((s) => ({ ...s, share: flip(s.share, 31) })) });
      case "confirm":
        return lie(world, m, { ...payload, proof: flip(payload.proof, 40) });
      case "nonces":
      case "partial":
        return m;
    }
  };

  test("leave one certificate or none, and name nobody but the liar", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.double({ min: 0, max: 0.3, noNaN: true }), async (seed, rate) => {
        const { world, terms } = start(seed % 1_000);
        const chaos = seeded(seed);
        const kept: SignedMessage[] = [];
        const run = await runCeremony(world, terms, {
          shuffle: chaos,
          tamper: (m) => {
            kept.push(m);
            const out = [m];
            if (chaos.chance(rate)) out.push(chaos.pick(kept));
            if (chaos.chance(rate)) out.push({ ...m, signature: flip(m.signature, chaos.int(64)) });
            if (chaos.chance(rate / 10)) out.shift();
            if (m.message.from === LIAR && chaos.chance(rate)) {
              const forged = mutated(world, m, chaos.int(100));
              return chaos.chance(0.3) ? [...out, forged] : [forged];
            }
            return out;
          },
        });
        holds(terms, run);
      }),
      { numRuns: 40 },
    );
  }, 60_000);
});
