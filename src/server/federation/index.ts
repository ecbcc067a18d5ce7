import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ServerContext } from "../context.ts";
import type { ServerKeys } from "../directory.ts";
import type { EnclaveClient } from "../enclave.ts";
import { faultFields, type ServerLog } from "../log.ts";
import { createAttempts } from "./attempts.ts";
import { createDecisions } from "./decisions.ts";
import { askEngines } from "./engines.ts";
import { createHook, type Hook, noHook, readHookCommand } from "./hook.ts";
import { createKeys } from "./keys.ts";
import { createMembership, liveProposals } from "./membership.ts";
import { createOperator } from "./operator.ts";
import { createPolicies } from "./policies.ts";
import { createRequests } from "./requests.ts";
import type { Desk } from "./ruling.ts";
import type { FederationService, FederationSite } from "./service.ts";
import { sweepFederation } from "./sweeping.ts";
import { createTurns } from "./turns.ts";
import { createVoting } from "./voting.ts";

export interface FederationOptions {
  readonly ctx: ServerContext;
  readonly keys: Pick<ServerKeys, "identity">;
  readonly version: string;
  readonly pin: string;
  readonly enclave: EnclaveClient;
  readonly hook: Hook;
}

/** The parts of the role over one site; for tests without a process of its own. */
export function assembleFederation(site: FederationSite, end: () => Promise<void>): FederationService {
  const desk: Desk = { site, turns: createTurns(), ask: askEngines(site) };
  return {
    ...createMembership(site),
    ...createPolicies(site),
    ...createRequests(desk),
    ...createVoting(desk),
    ...createAttempts(desk),
    ...createDecisions(desk),
    ...createKeys(desk),
    control: createOperator(site),
    async sweep() {
      await site.ctx.store.transaction((tx) => liveProposals(tx, site.ctx.now()));
      await sweepFederation(desk);
    },
    close: end,
  };
}

/** File in the server's directory that names the operator's hook command, if there is one. */
const HOOK_FILE = "notify";

/** The operator's hook, read at the first event; one that cannot be used is said in the log, and nothing waits for it. */
export function hookOf(dir: string, log: ServerLog): Hook {
  let reading: Promise<Hook> | undefined;
  const read = async (): Promise<Hook> => {
    const path = join(dir, HOOK_FILE);
    if (!existsSync(path)) return noHook;
    try {
      return createHook({ argv: await readHookCommand(path), log });
    } catch (error) {
      log.write("error", faultFields(error));
      return noHook;
    }
  };
  return {
    notify(event) {
      reading ??= read();
      void reading.then((hook) => hook.notify(event));
    },
    close: async () => (await reading)?.close(),
  };
}

/** A running server's role in federations. */
export function createFederation({ ctx, keys, version, pin, enclave, hook }: FederationOptions): FederationService {
  const site: FederationSite = {
    ctx,
    version,
    pin,
    operator: keys.identity,
    enclave,
    notify: hook.notify,
  };
  return assembleFederation(site, async () => undefined);
}
