import type { ServerContext } from "../context.ts";
import type { ServerKeys } from "../directory.ts";
import { hookOf } from "../federation/index.ts";
import type { ServerLog } from "../log.ts";
import { createInfo } from "./info.ts";
import { createIntegrator } from "./integrator.ts";
import { createKeyrings, type KeyringQuestions } from "./keyrings.ts";
import { createRegistryControl, type RegistryControl } from "./operator.ts";
import { createPeople } from "./people.ts";
import { createRest } from "./rest.ts";
import type { RegistryService, RegistrySite } from "./service.ts";
import { createTokens } from "./tokens.ts";
import { createWorkspaces, type WorkspaceQuestions } from "./workspaces.ts";

export interface RegistryOptions {
  readonly ctx: ServerContext;
  readonly keys: Pick<ServerKeys, "identity">;
  /** The server's directory. */
  readonly dir: string;
  readonly version: string;
  readonly log: ServerLog;
  /** From `openRegistrySeed`, 32 bytes. */
  readonly sealingSeed: Uint8Array;
}

/** What people, workspaces, keyrings and tokens do themselves. */
type Own = ReturnType<typeof createInfo> &
  ReturnType<typeof createPeople> &
  ReturnType<typeof createWorkspaces> &
  ReturnType<typeof createKeyrings> &
  ReturnType<typeof createTokens> &
  ReturnType<typeof createIntegrator>;

/** What requests and their coordination add. */
export type RegistryRest = Omit<RegistryService, keyof Own> & WorkspaceQuestions & KeyringQuestions;

/** The parts of a registry over one site; for tests without a process of its own. */
export function assembleRegistry(site: RegistrySite, rest: RegistryRest = createRest(site)): RegistryService {
  return {
    ...rest,
    ...createInfo(site),
    ...createPeople(site),
    ...createWorkspaces(site, rest),
    ...createKeyrings(site, rest),
    ...createTokens(site),
    ...createIntegrator(site, rest.sweep),
  };
}

/** A running server's role as a registry of workspaces and keyrings (docs/protocol.md §9.1). */
export function createRegistry(options: RegistryOptions): {
  readonly service: RegistryService;
  readonly control: RegistryControl;
  /** Lets nobody wait for tasks any more, so that no request in flight does. */
  readonly drain: () => void;
} {
  const { ctx, keys, dir, version, log, sealingSeed } = options;
  const hook = hookOf(dir, log);
  const site: RegistrySite = { ctx, version, identity: keys.identity, sealingSeed, notify: hook.notify };
  const service = assembleRegistry(site);
  const close = async () => {
    await service.close();
    await hook.close();
  };
  const drain = () => void service.close();
  return { service: { ...service, close }, control: createRegistryControl(site), drain };
}
