import { partyAccount, workspaceAccount } from "../../protocol/keyring/ledger.ts";
import type { ControlInput, ControlName, ControlOutput } from "../../wire/control.ts";
import { balanceOf, balances, checkLedger, giveCredits, payOut } from "./balances.ts";
import { eventsAfter, recorded } from "./events.ts";
import { noRegistry, type RegistrySite } from "./service.ts";

/** Control operations of a registry: of the machine's administrator. */
export type RegistryControl = {
  readonly [N in Extract<ControlName, `registry.${string}`>]: (input: ControlInput<N>) => Promise<ControlOutput<N>>;
};

/** Accounts in one answer: as many as the operation's codec takes. */
const BALANCES_MAX = 100_000;

const refused = () => Promise.reject(noRegistry());

/** Of a server that is no registry. */
export const noRegistryControl: RegistryControl = {
  "registry.credit": refused,
  "registry.balances": refused,
  "registry.payout": refused,
  "registry.events": refused,
};

/** Credits, the ledger and events, for the registry's operator (docs/protocol.md §9.5). */
export function createRegistryControl(site: RegistrySite): RegistryControl {
  const { ctx } = site;
  return {
    "registry.credit": (input) =>
      recorded(site, async (tx, tell) => {
        const { workspaceId, amount } = input;
        await giveCredits(tx, input, ctx.now());
        await tell({ event: "workspace.credited", workspaceId, detail: `${amount} credits` });
        return { balance: await balanceOf(tx, workspaceAccount(workspaceId)) };
      }),
    "registry.balances": () =>
      ctx.store.transaction(async (tx) => {
        const { entries, problems } = await checkLedger(tx);
        const items = [...(await balances(tx))].slice(0, BALANCES_MAX);
        return { items, entries, sound: problems.length === 0, problems: [...problems] };
      }),
    "registry.payout": (input) =>
      recorded(site, async (tx, tell) => {
        const { keyringId, party, amount } = input;
        await payOut(tx, input, ctx.now());
        await tell({ event: "party.paid", keyringId, detail: `${party}, ${amount} credits` });
        return { balance: await balanceOf(tx, partyAccount(keyringId, party)) };
      }),
    "registry.events": ({ after }) => ctx.store.transaction((tx) => eventsAfter(tx, null, after)),
  };
}
