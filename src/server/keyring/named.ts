import type { AnyHashId } from "../../ids.ts";
import { policyIdOf } from "../../protocol/federation/policy.ts";
import type { InputOf } from "../../wire/operations.ts";
import type { RegistryOperation } from "../context.ts";

type Inputs = { readonly [N in RegistryOperation]: (input: InputOf<N>) => AnyHashId | undefined };

const nothing = () => undefined;

const NAMED: Inputs = {
  "keyring.enrol": nothing,
  "workspace.create": ({ policy: { document } }) => policyIdOf(document),
  "workspace.list": nothing,
  "workspace.get": (input) => input.workspaceId,
  "workspace.policy": (input) => input.workspaceId,
  "workspace.policy.set": nothing,
  "workspace.ledger": (input) => input.workspaceId,
  "workspace.events": (input) => input.workspaceId,
  "workspace.inbox": nothing,
  "workspace.token.create": (input) => input.workspaceId,
  "workspace.token.list": (input) => input.workspaceId,
  "workspace.token.revoke": (input) => input.workspaceId,
  "keyring.create": nothing,
  "keyring.list": nothing,
  "keyring.get": (input) => input.keyringId,
  "keyring.change": (input) => input.keyringId,
  "keyring.request": (input) => input.workspaceId,
  "keyring.request.get": (input) => input.requestId,
  "keyring.requests": (input) => input.workspaceId,
  "keyring.vote": (input) => input.requestId,
  "keyring.cancel": (input) => input.requestId,
  "keyring.finish": (input) => input.requestId,
  "keyring.keys": (input) => input.workspaceId,
  "keyring.key": (input) => input.keyId,
  "party.tasks": nothing,
  "party.report": ({ reports }) => reports[0]?.itemId,
};

/** The workspace, keyring, request or key that an operation of the registry names. */
export function namedByRegistry<N extends RegistryOperation>(name: N, input: InputOf<N>): AnyHashId | undefined {
  return (NAMED[name] as (input: InputOf<N>) => AnyHashId | undefined)(input);
}
