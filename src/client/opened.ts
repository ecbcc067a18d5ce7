import { Fault } from "../errors.ts";
import { followUp, takePromise } from "./checkpoint.ts";
import { settlePending } from "./commit.ts";
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
}

/** The server's side of one piece of work. */
export interface Online {
  readonly session: Session;
  /** True once an answer showed a newer account than the model's. */
  moved(): boolean;
}

/** Failures that mean that the server is away, so that the vault may answer. */
const AWAY: ReadonlySet<string> = new Set(["unreachable", "timed_out", "unavailable", "outcome_unknown"]);

/**
 * Runs work with the server where there is one, after settling what an earlier command left pending; when it is away,
 * once more on the vault alone, and says so.
 *
 * @param fresh Insists on the server.
 */
export async function online<T>(open: Open, fresh: boolean, work: (at: Online | null) => Promise<T>): Promise<T> {
  refresh(open.box);
  const { session, around } = open;
  const { bound } = open.box.model;
  if (session === null || bound === null) {
    if (fresh && bound) throw new Fault("unreachable", "the server is away");
    if (fresh) {
      throw new Fault("bad_input", "this profile has no server to ask", {
        hint: "keyhold register --server URL --pin PIN --account NAME",
      });
    }
    if (bound)
      around.notice(
        `the server is away: from the vault, last synchronised ${new Date(bound.syncedAtMs).toISOString()}`,
      );
    return work(null);
  }
  let moved = false;
  session.onHead = async (head, beside) => {
    moved = checkHead(open.box.model, head);
    await takePromise(open.box.model, session, head, beside, around.now());
  };
  try {
    if (readPending(open.box.path) !== null) {
      await withVault(open.box, around, (held) => settlePending(open.box.model, held, session, around));
    }
    await followUp(open.box.model, session, around);
    return await work({ session, moved: () => moved });
  } catch (error) {
    if (fresh || !(error instanceof Fault) || !AWAY.has(error.code)) throw error;
    around.notice(`the server is away: from the vault, last synchronised ${new Date(bound.syncedAtMs).toISOString()}`);
    return work(null);
  }
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
