import { equalBytes } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { registryScope } from "../../protocol/federation/request.ts";
import { KEYRING_STATUSES } from "../../protocol/keyring/requestlife.ts";
import type { KeyringRequestView } from "../../wire/keyring/views.ts";
import { drawSecret } from "../federation/joining.ts";
import { changeHeld, heldIn, secretIn } from "../federation/keeping.ts";
import type { ManifestSource } from "../federation/manifests.ts";
import type { Reaching } from "../federation/members.ts";
import { askServer, sourceAt } from "../federation/reaching.ts";
import type { KeyringClient, KeyringRequestInfo, OwnerInfo } from "../keyringapi.ts";
import { connect } from "../login.ts";
import { boundOf } from "../model.ts";
import { type Open, online } from "../opened.ts";
import { requestKey, requestSignatures } from "./asking.ts";
import { createToken, eventsOf, ledgerOf, revokeToken, tokensOf } from "./books.ts";
import { continueRequest } from "./finishing.ts";
import { type Ground, lie } from "./ground.ts";
import { allKeyrings, changeKeyring, createKeyring, findKeyring, keyringInfo } from "./keyrings.ts";
import { findKey, keyAddress, keyInfo, listKeys } from "./keys.ts";
import { answered, findRequest, knownRequest, requestPages } from "./known.ts";
import { looksOf } from "./looks.ts";
import { enrolOwner, registryInfo } from "./owner.ts";
import { requestInfo } from "./views.ts";
import { castVote, inboxOf } from "./voting.ts";
import { allWorkspaces, changeWorkspace, createWorkspace, findWorkspace, workspaceInfo } from "./workspaces.ts";

/** Runs one call over what is around it. */
type Around = <T>(work: (ground: Ground) => Promise<T>) => Promise<T>;

/** Makes sure that the account has its federation secret; what it gives back takes a secret that it drew away again. */
type Prepare = () => Promise<() => Promise<void>>;

/** The keyrings' part of the client API over any ground (docs/client.md). */
export function keyringCalls(at: Around, prepare: Prepare): KeyringClient {
  /** Nothing is drawn for a server that is no registry, and nothing is kept that another device has already. */
  async function owner(): Promise<OwnerInfo> {
    await at(registryInfo);
    const undo = await prepare();
    try {
      return await at(enrolOwner);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "conflict") throw error;
      await undo();
      throw new Fault("denied", "this account has another owner key at the registry already", {
        why: "it derives of the federation secret, which another device of the account has",
        hint: "link this device (keyhold account device link on another one), or use the recovery kit (keyhold account recover)",
      });
    }
  }

  return {
    keyringOwner: owner,
    workspaces: () => at(async (ground) => (await allWorkspaces(ground)).map((one) => workspaceInfo(ground, one))),
    workspace: (input) => at(async (ground) => workspaceInfo(ground, await findWorkspace(ground, input.workspace))),
    createWorkspace: (input) => owner().then(() => at((ground) => createWorkspace(ground, input))),
    changeWorkspace: (input) => at((ground) => changeWorkspace(ground, input.workspace, input.change)),
    workspaceLedger: (input) => at((ground) => ledgerOf(ground, input.workspace)),
    workspaceEvents: (input) => at((ground) => eventsOf(ground, input.workspace, input.after)),
    createToken: (input) => at((ground) => createToken(ground, input)),
    tokens: (input) => at((ground) => tokensOf(ground, input.workspace)),
    revokeToken: (input) => at((ground) => revokeToken(ground, input.workspace, input.tokenId)),
    keyrings: () => at(async (ground) => (await allKeyrings(ground)).map((one) => keyringInfo(ground, one))),
    keyring: (input) => at(async (ground) => keyringInfo(ground, await findKeyring(ground, input.keyring))),
    createKeyring: (input) => at((ground) => createKeyring(ground, input)),
    changeKeyring: (input) => at((ground) => changeKeyring(ground, input.keyring, input.change)),
    requestKey: (input) => at((ground) => requestKey(ground, input)),
    requestSignatures: (input) => at((ground) => requestSignatures(ground, input)),
    keyringRequests: (input) => at((ground) => listRequests(ground, input)),
    keyringRequest: (input) =>
      at(async (ground) => requestInfo(looksOf(ground), await findRequest(ground, input.requestId))),
    continueKeyringRequest: (input) => at((ground) => continueRequest(ground, input)),
    cancelKeyringRequest: (input) =>
      at(async (ground) => {
        const { requestId } = (await findRequest(ground, input.requestId)).view;
        const after = await ground.call("keyring.cancel", { requestId });
        return requestInfo(looksOf(ground), answered(ground, requestId, after));
      }),
    keyringInbox: () => at(inboxOf),
    voteKeyring: (input) => at((ground) => castVote(ground, input)),
    keyringKeys: (input) => at((ground) => listKeys(looksOf(ground), input)),
    keyringKey: (input) =>
      at(async (ground) => {
        const looks = looksOf(ground);
        return keyInfo(looks, await findKey(looks, input.key));
      }),
    keyringAddress: (input) => at((ground) => keyAddress(looksOf(ground), input)),
  };
}

const isStatus = (text: string): text is KeyringRequestView["status"] =>
  (KEYRING_STATUSES as readonly string[]).includes(text);

async function listRequests(ground: Ground, { workspace, status }: Parameters<KeyringClient["keyringRequests"]>[0]) {
  if (status !== null && !isStatus(status)) {
    throw new Fault("bad_input", `no request is ever "${status}"`, { hint: `one of: ${KEYRING_STATUSES.join(", ")}` });
  }
  const { view } = await findWorkspace(ground, workspace);
  const looks = looksOf(ground);
  const found: KeyringRequestInfo[] = [];
  for (const one of await requestPages(ground, view, status)) {
    if (one.workspaceId !== view.workspaceId) throw lie(ground, "a request of another workspace");
    found.push(await requestInfo(looks, knownRequest(ground, one)));
  }
  return found;
}

/** Manifests of earlier epochs, from whichever server of a federation can be reached. */
function sourcesAt(open: Open, { reach = connect }: Reaching): Ground["manifestsFrom"] {
  return (servers) =>
    servers.map((server): ManifestSource => {
      return async (federationId, epoch) => {
        try {
          return await sourceAt(await askServer(server, reach, open.around))(federationId, epoch);
        } catch (error) {
          if (error instanceof Fault && error.code !== "integrity") return null;
          throw error;
        }
      };
    });
}

/** Servers' faults come without a hint. */
function sayNoRegistry(error: unknown): never {
  if (!(error instanceof Fault) || error.code !== "unsupported") throw error;
  const { requestId } = error;
  const hint = "its operator starts it with: keyhold serve --registry";
  throw new Fault("unsupported", error.message, { hint, ...(requestId && { requestId }) });
}

/**
 * The keyrings' part of the client API over an open vault: the registry is the server of the profile itself, in its
 * session (docs/client.md).
 *
 * @param url Where that server is, as faults name it.
 */
export function createKeyringClient(open: Open, url: string, reaching: Reaching = {}): KeyringClient {
  const at: Around = (work) =>
    online(open, true, async (there) => {
      if (!there) throw new Fault("unreachable", "the server is away");
      const { session } = there;
      const { serverIdentity: identity, userId } = boundOf(open.box.model);
      const { now, random, notice } = open.around;
      return work({
        identity,
        scope: registryScope(identity),
        url,
        userId,
        call: async (operation, input) => {
          const { output } = await session.call(operation, input).catch(sayNoRegistry);
          return output;
        },
        ask: (operation) => session.ask(operation, {}),
        secret: () => secretIn(open),
        held: () => heldIn(open),
        change: (change) => changeHeld(open, change),
        manifestsFrom: sourcesAt(open, reaching),
        now,
        random,
        notice,
      });
    });
  return keyringCalls(at, async () => {
    if (heldIn(open).federationSecret !== null) return async () => undefined;
    await drawSecret(open);
    const drawn = sha256(secretIn(open));
    return () =>
      changeHeld(open, (held) => {
        const own = held.federationSecret !== null && equalBytes(sha256(held.federationSecret), drawn);
        return own && held.federations.length === 0 ? { ...held, federationSecret: null } : held;
      });
  });
}
