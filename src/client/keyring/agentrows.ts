import { ADDRESS_KINDS, NETWORKS } from "../../protocol/addresskind.ts";
import { FEDERATED_TYPES, SERVERS_MAX, SIGN_FORMS } from "../../protocol/federation/kinds.ts";
import { bool, nullable, oneOf, text, u53, uint } from "../../wire/codec.ts";
import { byKind, data, many, maybe, or, orNull, params, type Reader } from "../agentparams.ts";
import { type Row, row } from "../agentrow.ts";
import type { KeyringClient, SignatureItem, WorkspaceChange } from "../keyringapi.ts";

type InputOf<M extends keyof KeyringClient> = Parameters<KeyringClient[M]> extends [infer I] ? I : object;
type KeyringChange = InputOf<"changeKeyring">["change"];

/** Bounded so that nothing is endless; what they may hold the client itself checks. */
const word = text({ max: 2_048 });
const requestId = text({ max: 64 });
const OWNERS_MAX = 128;
const ITEMS_MAX = 16;
/** The JSON of a policy's document: checked by whoever reads it. */
const json: Reader<unknown> = { decode: (value) => value };

const nothing = params<object>({});
const workspace = params<{ readonly workspace: string }>({ workspace: word });
const request = params<{ readonly requestId: string }>({ requestId });
const owner = params<{ readonly name: string; readonly keyHex: string }>({ name: word, keyHex: word });
const party = params<InputOf<"createKeyring">["parties"][number]>({ name: word, index: uint(), keyHex: word });
const fees = params<InputOf<"createKeyring">["fees"]>({ key: u53, signature: u53 });
const amount = params<{ readonly unit: string; readonly value: string }>({ unit: word, value: word });

const name = params<{ readonly name: string }>({ name: word });

const workspaceChange = byKind<WorkspaceChange>({
  ownerAdded: owner,
  ownerRemoved: name,
  quorums: params<{ readonly admin: number | null; readonly sign: number | null }>({
    admin: or(nullable(uint()), null),
    sign: or(nullable(uint()), null),
  }),
  document: params<{ readonly document: unknown }>({ document: json }),
  approve: params<{ readonly hashHex: string }>({ hashHex: word }),
});

const keyringChange = byKind<KeyringChange>({
  partyAdded: party,
  partyRemoved: name,
  partyCleared: name,
  threshold: params<{ readonly threshold: number }>({ threshold: uint() }),
  fees,
  active: params<{ readonly active: boolean }>({ active: bool }),
  adminAdded: params<{ readonly userId: string }>({ userId: word }),
  adminRemoved: params<{ readonly userId: string }>({ userId: word }),
  manifest: nothing,
});

const signatureItem = params<SignatureItem>({
  key: word,
  form: or(oneOf(SIGN_FORMS), "message"),
  message: data,
  input: or(uint(), 0),
  amount: or(orNull(amount), null),
});

/** What each method of keyrings takes through the agent (docs/agent.md). */
export const KEYRING_ROWS: { readonly [M in keyof KeyringClient]: Row<InputOf<M>> } = {
  keyringOwner: row(nothing),
  workspaces: row(nothing),
  workspace: row(workspace),
  // the owner's signature, which others rely on, in this and in what follows where the account is touched
  createWorkspace: row(
    params<InputOf<"createWorkspace">>({
      name: word,
      owners: or(many(owner, OWNERS_MAX), []),
      self: word,
      admin: or(uint(), 1),
      sign: or(uint(), 1),
    }),
    () => "account",
  ),
  changeWorkspace: row(
    params<InputOf<"changeWorkspace">>({ workspace: word, change: workspaceChange }),
    () => "account",
  ),
  workspaceLedger: row(workspace),
  workspaceEvents: row(params<InputOf<"workspaceEvents">>({ workspace: word, after: or(u53, 0) })),
  // whoever has it reads the workspace
  createToken: row(params<InputOf<"createToken">>({ workspace: word, name: word, expiresInMs: u53 }), () => "account"),
  tokens: row(workspace),
  revokeToken: row(params<InputOf<"revokeToken">>({ workspace: word, tokenId: word })),
  keyrings: row(nothing),
  keyring: row(params<InputOf<"keyring">>({ keyring: word })),
  createKeyring: row(
    params<InputOf<"createKeyring">>({
      name: word,
      federation: word,
      threshold: or(nullable(uint()), null),
      fees,
      parties: many(party, 2 * SERVERS_MAX),
    }),
  ),
  changeKeyring: row(params<InputOf<"changeKeyring">>({ keyring: word, change: keyringChange }), () => "account"),
  requestKey: row(
    params<InputOf<"requestKey">>({
      workspace: word,
      keyring: word,
      type: oneOf(FEDERATED_TYPES),
      feeMax: maybe(u53),
    }),
    () => "account",
  ),
  requestSignatures: row(
    params<InputOf<"requestSignatures">>({ items: many(signatureItem, 2 * ITEMS_MAX), feeMax: maybe(u53) }),
    () => "account",
  ),
  keyringRequests: row(params<InputOf<"keyringRequests">>({ workspace: word, status: or(nullable(word), null) })),
  keyringRequest: row(request),
  // it may sign with a key that is let out for it
  continueKeyringRequest: row(request, () => "account"),
  cancelKeyringRequest: row(request),
  keyringInbox: row(nothing),
  voteKeyring: row(
    params<InputOf<"voteKeyring">>({
      requestId,
      verdict: oneOf(["approve", "reject"]),
      reason: or(text({ max: 512 }), ""),
    }),
    () => "account",
  ),
  keyringKeys: row(
    params<InputOf<"keyringKeys">>({
      workspace: word,
      keyring: or(nullable(word), null),
      type: or(nullable(oneOf(FEDERATED_TYPES)), null),
    }),
  ),
  keyringKey: row(params<InputOf<"keyringKey">>({ key: word })),
  keyringAddress: row(
    params<InputOf<"keyringAddress">>({
      key: word,
      kind: oneOf(ADDRESS_KINDS),
      network: or(nullable(oneOf(NETWORKS)), null),
      prefix: or(nullable(word), null),
    }),
  ),
};
