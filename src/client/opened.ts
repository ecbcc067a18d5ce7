import { Fault } from "../errors.ts";
import { ageText } from "./age.ts";
import { followUp, takePromise } from "./checkpoint.ts";
import { settlePending } from "./commit.ts";
import { type Merged, mergeQueue, NOTHING_MERGED } from "./merge.ts";
import { adoptServerSecrets, type Model, type Surroundings } from "./model.ts";
import type { Session } from "./session.ts";
import { checkHead } from "./sync.ts";
import { refresh, type VaultBox, withVault } from "./vaultbox.ts";
import { readPending } from "./vaultfile.ts";

/** An open vault, with a session where the server could be reached. */
export interface Open {
  readonly box: VaultBox;
  /** null: no server, or it is away. */
  readonly session: Session | null;
  readonly around: Surroundings;
  /**
   * Without a session: `unlocked` where an agent has had none since it was unlocked, and the server may be back;
   * `withheld` where the server is there, and nobody gave the code that it asks for.
   */
  readonly since?: "unlocked" | "withheld";
}

/** The server's side of one piece of work. */
export interface Online {
  readonly session: Session;
  /** What went to the server before this piece of work, of that which had waited. */
  readonly merged: Merged;
  /** True once an answer showed a newer account than the model's. */
  moved(): boolean;
}

/** Failures that mean that the server is away, so that the vault may answer. */
const AWAY: ReadonlySet<string> = new Set(["unreachable", "timed_out", "unavailable", "outcome_unknown"]);

/** True for a failure that means that the server is away. */
export const isAway = (error: unknown): error is Fault => error instanceof Fault && AWAY.has(error.code);

/** Says that the vault answers, and how old it is. */
function tellAge({ around, since, box }: Open): void {
  const { bound } = box.model;
  if (!bound) return;
  const age = ageText(around.now() - bound.syncedAtMs);
  const why = {
    unlocked: "unlocked while the server was away (keyhold login asks it again)",
    withheld: "without a code of the second factor (keyhold login asks for one)",
    away: "the server is away",
  }[since ?? "away"];
  around.notice(`${why}: from the vault, synced ${age}`);
}

/**
 * Runs work with the server where there is one, after settling what an earlier command left pending and sending what
 * waits; when it is away, once more on the vault alone, and says so. A server that was found away a moment ago is asked
 * only where the vault has no answer.
 *
 * @param fresh Insists on the server.
 * @param merge False leaves what waits where it is.
 */
export async function online<T>(
  open: Open,
  fresh: boolean,
  work: (at: Online | null) => Promise<T>,
  merge = true,
): Promise<T> {
  refresh(open.box);
  const { session } = open;
  if (session === null || open.box.model.bound === null) {
    if (fresh) throw noServer(open);
    tellAge(open);
    return work(null);
  }
  if (!fresh && session.away()) {
    try {
      const done = await work(null);
      tellAge(open);
      return done;
    } catch (error) {
      // the server may be back, and have it
      if (!isAway(error) && !(error instanceof Fault && error.code === "not_found")) throw error;
    }
  }
  try {
    return await withServer(open, session, work, merge);
  } catch (error) {
    if (fresh || !isAway(error)) throw error;
    tellAge(open);
    return work(null);
  }
}

function noServer({ box, since }: Open): Fault {
  if (since === "withheld") {
    return new Fault("factor_required", "this vault was opened without the code that its server asks for");
  }
  if (box.model.bound) {
    return new Fault("unreachable", "the server is away", since === "unlocked" ? { hint: "keyhold login" } : {});
  }
  return new Fault("bad_input", "this profile has no server to ask", {
    hint: "keyhold register --server URL --pin PIN --account NAME",
  });
}

async function withServer<T>(
  open: Open,
  session: Session,
  work: (at: Online | null) => Promise<T>,
  merge: boolean,
): Promise<T> {
  const { box, around } = open;
  let moved = false;
  session.onHead = async (head, beside) => {
    moved = checkHead(box.model, head);
    await takePromise(box.model, session, head, beside, around.now());
  };
  if (readPending(box.path) !== null) {
    await withVault(box, around, (held) => settlePending(box.model, held, session, around));
  }
  await followUp(box.model, session, around);
  const merged = merge ? await mergeQueue(box, session, around) : NOTHING_MERGED;
  return work({ session, merged, moved: () => moved });
}

/**
 * Writes the model to the vault; `change` is applied to the newest generation first. What another process wrote
 * meanwhile stays, and so does what this one learned from the server.
 */
export async function save(open: Open, change?: (model: Model) => void): Promise<void> {
  const mine = open.box.model;
  await withVault(open.box, open.around, async (held) => {
    const replaced = open.box.model !== mine;
    if (replaced && !adoptServerSecrets(open.box.model, mine) && !change) return;
    change?.(open.box.model);
    await held.save();
  });
}
