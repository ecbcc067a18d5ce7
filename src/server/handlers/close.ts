import { equalBytes, ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { closedHash, stateHash, stateSignaturesHold } from "../../protocol/state.ts";
import { eraseCeremonies } from "../ceremony/erasing.ts";
import type { AnonymousHandler, SessionHandler } from "../context.ts";
import { eraseFederated } from "../federation/erasing.ts";
import { continuesAccount, demandCurrent, misfit } from "../state.ts";
import { demandFreshLogin } from "./account.ts";

/**
 * Ends an account by its owner's signed word: everything of it is erased but the salted links of its log, and its last
 * state, which its devices may ask for (docs/protocol.md §5.10).
 */
export const deleteAccount: SessionHandler<"account.delete"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller, "deleting the account");
  demandCurrent(caller, input.state);
  const { account } = caller;
  const { state } = input.state;
  const sound =
    continuesAccount(ctx, caller, input.state) &&
    equalBytes(state.settingsHash, closedHash(account.userId)) &&
    equalBytes(state.root, ZERO_HASH_BYTES) &&
    stateSignaturesHold(input.state, account.settings);
  if (!sound) throw misfit();
  const hash = stateHash(state);
  return {
    output: { revision: state.revision, stateHash: hash },
    stateHash: hash,
    async last() {
      await eraseFederated(tx, account.userId);
      await eraseCeremonies(ctx, tx, account.userId);
      await tx.removeAccount(account.userId);
      const tokens = account.settings.devices.map(({ tokenHash }) => tokenHash);
      await tx.putClosed(account.userId, tokens, { state: input.state, closedAtMs: ctx.now() });
    },
  };
};

/** The last state of a deleted account, for a token of its devices; one look-up and one answer for all else. */
export const closedAccount: AnonymousHandler<"account.closed"> = async (ctx, _remote, input) => {
  const tokenHash = sha256(input.deviceToken);
  const row = await ctx.store.transaction((tx) => tx.closed(input.userId, tokenHash));
  if (!row) throw new Fault("not_found", "no such account");
  return row;
};
