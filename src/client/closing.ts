import { equalBytes, wipe, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { newId, type RequestId, type UserId } from "../ids.ts";
import { closedHash, type SignedState, stateHash } from "../protocol/state.ts";
import { requestHash } from "../wire/operations.ts";
import { checkReceipt, lostTurn, rebase, signNext } from "./commit.ts";
import { askClosed, type Detached, detachVault, wouldStay } from "./detach.ts";
import { closeQuietly, type FreshLogin, type Home, logInFreshly } from "./home.ts";
import type { Surroundings } from "./model.ts";
import { boundOf, type Model } from "./model.ts";
import { online } from "./opened.ts";
import type { Profile } from "./profile.ts";
import { isSealed } from "./session.ts";
import { synchronise } from "./sync.ts";
import { withVault } from "./vaultbox.ts";

/** The state that ends an account: no settings, no secrets (docs/protocol.md §5.10). */
function lastState(model: Model, requestId: RequestId): SignedState {
  const bound = boundOf(model);
  const hash = requestHash("account.delete", { state: bound.head });
  const content = { requestId, requestHash: hash, root: ZERO_HASH_BYTES, settingsHash: closedHash(bound.userId) };
  return signNext(model, content);
}

/** What deleting an account did. */
export interface Deleted extends Detached {
  readonly account: string;
  readonly userId: UserId;
  readonly requestId: RequestId;
}

/** Sends the last state; an outcome that no answer told is asked for by the device's token. */
async function sendLast(fresh: FreshLogin, profile: Profile): Promise<RequestId> {
  const { open, link } = fresh;
  const { session, around, box } = open;
  const beganMs = around.now();
  for (let attempt = 0; ; attempt++) {
    const requestId = newId<RequestId>(around.random);
    const state = lastState(box.model, requestId);
    try {
      checkReceipt(state, await session.call("account.delete", { state }, requestId));
      return requestId;
    } catch (error) {
      if (await lostTurn(error, attempt, beganMs, around)) {
        await rebase(box.model, session, around, state);
        continue;
      }
      if (isSealed(error)) throw error;
      const closed = await askClosed(link, profile);
      if (closed && equalBytes(stateHash(closed.state.state), stateHash(state.state))) return requestId;
      throw error;
    }
  }
}

/**
 * Deletes an account for good: a fresh login, a last signed state, and this device's vault becomes one without a server.
 * Nothing of it is kept to be sent again: cut short, the account is either there or gone, as the next login tells.
 *
 * @param confirm Learns what this vault would keep before anything is sent; throws to give up.
 * @throws Fault login_failed, rate_limited, unreachable
 */
export async function deleteAccount(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
  confirm: (staying: Detached) => Promise<void> = async () => undefined,
): Promise<Deleted> {
  const { account, userId } = profile;
  if (!profile.server || account === null || userId === null) {
    throw new Fault("bad_input", "this profile has no account", { hint: "keyhold profile remove" });
  }
  const fresh = await logInFreshly(home, profile, password, around);
  const { open, done } = fresh;
  const { box } = open;
  try {
    // what waits would go to an account that ends: it stays in the vault
    await online(open, true, () => synchronise(box.model, done.session, around), false);
    await confirm(wouldStay(box.model));
    const requestId = await online(
      open,
      true,
      async (at) => {
        if (at?.moved()) await synchronise(box.model, done.session, around);
        return withVault(box, around, () => sendLast(fresh, profile));
      },
      false,
    );
    const left = await detachVault(box, { profiles: home.profiles, profile }, around);
    return { account, userId, requestId, ...left };
  } catch (error) {
    await closeQuietly(done);
    throw error;
  } finally {
    done.session.forget();
    wipe(done.accountKey);
  }
}
