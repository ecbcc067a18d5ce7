import { randomBytes } from "node:crypto";
import {
  appendLeaves,
  consistencyPlan,
  foldProof,
  inclusionPlan,
  treeLeafHash,
  treeNodeHash,
  verifyConsistency,
  verifyInclusion,
} from "../src/crypto/tree.ts";
import { newId, type RequestId, type SessionId, type UserId } from "../src/ids.ts";
import { AUDIT_SALT_BYTES, type AuditHead, auditLink, continueAudit, type SaltedEntry } from "../src/protocol/audit.ts";
import { positionLeaf } from "../src/protocol/log.ts";
import { type Measured, medianOf, report } from "./harness.ts";

/**
 * F14: verifying 1,000,000 audit entries: the whole chain of one account, and what a client that had verified all but
 * the last thousand has to do: those links, the consistency of two checkpoints and the inclusion of its position.
 */

const asked = process.argv.indexOf("--entries");
const ENTRIES = asked < 0 ? 1_000_000 : Number(process.argv[asked + 1]);
const NEW = 1_000;
const PIECE = 10_000;
const ROUNDS = 5;

const random = (length: number) => new Uint8Array(randomBytes(length));
const userId = newId<UserId>(random);
const session = newId<SessionId>(random);
const salt = random(AUDIT_SALT_BYTES);

let head: AuditHead = { seq: 0, link: new Uint8Array(32) };

/** The next entries of the account's log, as the server sends them. */
function piece(count: number): SaltedEntry[] {
  return Array.from({ length: count }, () => {
    const entry = {
      seq: head.seq + 1,
      userId,
      atMs: 1_700_000_000_000 + head.seq,
      action: "secret.get",
      status: "ok",
      keyId: null,
      requestId: newId<RequestId>(random),
      session,
      bodyHash: salt,
      stateHash: null,
      count: 1,
      previous: head.link,
    };
    const item = { entry, salt };
    head = { seq: entry.seq, link: auditLink(item) };
    return item;
  });
}

/** Every complete subtree's hash, level by level. */
function levelsOf(leaves: readonly Uint8Array[]): Uint8Array[][] {
  const levels = [[...leaves]];
  for (let below = levels[0] ?? []; below.length > 1; ) {
    const above: Uint8Array[] = [];
    for (let at = 0; at + 1 < below.length; at += 2) {
      const [left, right] = [below[at], below[at + 1]];
      if (left && right) above.push(treeNodeHash(left, right));
    }
    levels.push(above);
    below = above;
  }
  return levels;
}

let verifying = 0;
let verified: AuditHead = { seq: 0, link: new Uint8Array(32) };
let last: SaltedEntry[] = [];
let before = verified;
const leaves: Uint8Array[] = [];
for (let done = 0; done < ENTRIES; ) {
  const items = piece(Math.min(done + PIECE >= ENTRIES - NEW ? NEW : PIECE, ENTRIES - done));
  done += items.length;
  for (const { entry } of items) {
    leaves.push(treeLeafHash(positionLeaf({ pseudonym: salt, seq: entry.seq, link: entry.previous })));
  }
  const startedAt = performance.now();
  const result = continueAudit(verified, userId, items);
  verifying += performance.now() - startedAt;
  if (!result.ok) throw new Error("the chain does not hold");
  [before, verified, last] = [verified, result.head, items];
}

const levels = levelsOf(leaves);
const hashes = (plan: ReturnType<typeof inclusionPlan>) =>
  foldProof(
    plan,
    plan.flat().map(({ level, index }) => {
      const hash = levels[level]?.[index];
      if (!hash) throw new Error("the tree lacks a node");
      return hash;
    }),
  );
const rootOf = (size: number) => appendLeaves(0, [], leaves.slice(0, size)).root;
const [from, to] = [ENTRIES - NEW, ENTRIES];
const [fromRoot, toRoot] = [rootOf(from), rootOf(to)];
const consistency = hashes(consistencyPlan(from, to));
const inclusion = hashes(inclusionPlan(to - 1, to));
const newest = leaves.at(-1) ?? new Uint8Array(32);
const incremental = await medianOf(ROUNDS, async () => {
  const holds =
    continueAudit(before, userId, last).ok &&
    verifyConsistency(from, fromRoot, to, toRoot, consistency) &&
    verifyInclusion(newest, to - 1, to, inclusion, toRoot);
  if (!holds) throw new Error("the proof does not hold");
});

const measured: Measured[] = [
  { what: `the last ${NEW} of ${ENTRIES}`, unit: "ms", value: incremental, goal: { atMost: 1_000 } },
  {
    what: "hashes of both proofs",
    unit: "",
    value: consistency.length + inclusion.length,
    goal: { atMost: 2 * Math.ceil(Math.log2(ENTRIES)) + 2 },
  },
  { what: "the whole chain", unit: "ms", value: verifying },
  { what: "an entry", unit: "µs", value: (1_000 * verifying) / ENTRIES },
];
report("F14", "audit verification", measured, ["one account's chain; a server-wide log of as many leaves"]);
