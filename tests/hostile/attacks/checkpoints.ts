import { EMPTY_ROOT } from "../../../src/crypto/tree.ts";
import { type IncarnationId, newId } from "../../../src/ids.ts";
import { auditPseudonym } from "../../../src/protocol/audit.ts";
import { logOrigin, openCheckpoint, signCheckpoint, signPromise } from "../../../src/protocol/log.ts";
import type { OutputOf } from "../../../src/wire/operations.ts";
import { random } from "../../support/harness.ts";
import { editing, inventing } from "../../support/hostile.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** The server-wide log: promises to hold a change, checkpoints, and the proofs that join them. */

type Proof = OutputOf<"log.proof">;
type Promised = NonNullable<Parameters<NonNullable<Parameters<typeof editing>[3]>>[0]>;

const VERIFY = ["audit", "verify"];

/** A change by the desk, proven to be logged: the next proof must continue it. */
async function proven(stage: Stage): Promise<Proof> {
  let seen: Proof | undefined;
  await stage.store(stage.desk, "note/b", stage.fresh("value of b"));
  await stage.world.flushLog();
  const listening = editing(stage.world, {
    "log.proof": (output) => {
      seen = output;
      return output;
    },
  });
  await stage.world.during(listening, () => stage.desk.ok(VERIFY));
  if (!seen?.logged) throw new Error("the desk asked for no proof");
  return seen;
}

const proving =
  (edit: (proof: Proof, before: Proof, stage: Stage) => Proof) =>
  async (stage: Stage): Promise<Attempt> => {
    const before = await proven(stage);
    await stage.store(stage.desk, "note/b", stage.fresh("value of b"));
    await stage.world.flushLog();
    const lie = editing(stage.world, { "log.proof": (proof) => edit(proof, before, stage) });
    return { lie, command: VERIFY, ends: "integrity" };
  };

/** A checkpoint of the server's own making, signed with its own log key. */
function resigned({ world }: Stage, note: string, edit: { size?: number; root?: Uint8Array; origin?: string }): string {
  const { log, statement } = world.server.ctx;
  const opened = openCheckpoint(note, log.origin, statement().logKey);
  if (!opened) throw new Error("the checkpoint is not one");
  return signCheckpoint({ ...opened, ...edit }, log.signers);
}

/** A store whose answer brings another promise, or none. */
const promising =
  (edit: (promise: Promised, stage: Stage) => Promised | null) =>
  async (stage: Stage): Promise<Attempt> => {
    const name = stage.fresh("promised");
    stage.known.set(name, "once");
    const lie = editing(stage.world, {}, undefined, (promise) => promise && edit(promise, stage));
    return { lie, command: ["store", name], stdin: "once", ends: "integrity" };
  };

const flipped = (bytes: Uint8Array) => bytes.map((byte, i) => (i === 0 ? byte ^ 1 : byte));

export const CHECKPOINTS: readonly Attack[] = [
  ...attacks("withhold a receipt", ["6.3"], {
    "the promise to log a change": promising(() => null),
    "a promise without the log key's signature": promising((promise) => ({
      ...promise,
      signature: flipped(promise.signature),
    })),
    "a promise of another time than was signed": promising((promise) => ({ ...promise, atMs: promise.atMs + 1 })),
    "a promise to log another position": promising((promise, { world, userId }) => {
      const { log } = world.server.ctx;
      const pseudonym = auditPseudonym(userId, promise.salt);
      const other = { origin: log.origin, pseudonym, seq: 1, link: random(32), atMs: promise.atMs };
      return { ...promise, signature: signPromise(log.signers[0], other) };
    }),
    "the proof that the log continues": async (stage) => {
      await proven(stage);
      const lie = inventing(stage.world, "log.proof", () => ({ error: "bad_input" }));
      return { lie, command: VERIFY, ends: "integrity" };
    },
    "the account's place in the log": proving((proof) => ({ ...proof, logged: null })),
  }),
  ...attacks("show different logs to two devices", ["6.3"], {
    "yesterday's checkpoint": proving((_proof, before) => before),
    "a smaller log, signed anew": proving((proof, before, stage) => ({
      ...proof,
      checkpoint: resigned(stage, before.checkpoint, { size: 1 }),
    })),
    "an empty log, signed anew": proving((proof, _before, stage) => ({
      ...proof,
      checkpoint: resigned(stage, proof.checkpoint, { size: 0, root: EMPTY_ROOT }),
    })),
    "a log with another root, signed anew": proving((proof, _before, stage) => ({
      ...proof,
      checkpoint: resigned(stage, proof.checkpoint, { root: random(32) }),
    })),
    "another root at the size that was seen, signed anew": proving((_proof, before, stage) => ({
      ...before,
      checkpoint: resigned(stage, before.checkpoint, { root: random(32) }),
    })),
    "a proof that continues nothing": proving((proof) => ({
      ...proof,
      consistency: [...proof.consistency, random(32)],
    })),
    "a proof of another place": proving((proof) => ({
      ...proof,
      logged: proof.logged && { ...proof.logged, index: proof.logged.index + 1 },
    })),
    "another entry at the account's place": proving((proof) => ({
      ...proof,
      logged: proof.logged && { ...proof.logged, link: random(32) },
    })),
    "the account under another pseudonym": proving((proof) => ({
      ...proof,
      logged: proof.logged && { ...proof.logged, salt: random(32) },
    })),
    "a checkpoint without the log key's signature": proving((proof) => ({
      ...proof,
      checkpoint: proof.checkpoint.replace(/[A-Za-z0-9+/]{8}(=*\n)$/, "AAAAAAAA$1"),
    })),
    "a checkpoint of another incarnation's log": proving((proof, _before, stage) => ({
      ...proof,
      checkpoint: resigned(stage, proof.checkpoint, {
        origin: logOrigin(stage.world.server.ctx.keys.identity, newId<IncarnationId>(random)),
      }),
    })),
  }),
];
