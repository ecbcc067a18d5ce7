import type { AnyHashId } from "../../ids.ts";
import type { InputOf } from "../../wire/operations.ts";
import type { KeyStoreOperation } from "../context.ts";

type Inputs = { readonly [N in KeyStoreOperation]: (input: InputOf<N>) => AnyHashId | undefined };

const nothing = () => undefined;

const NAMED: Inputs = {
  // the new ceremony's id is said by `concerns`
  "ceremony.open": nothing,
  "ceremony.list": nothing,
  "ceremony.seat": (input) => input.ceremonyId,
  "ceremony.close": (input) => input.ceremonyId,
  "otp.create": nothing,
  "otp.entries": nothing,
  "otp.grant": (input) => input.keyId,
  "otp.revoke": (input) => input.keyId,
  "otp.handouts": (input) => input.keyId,
  "otp.request": ({ ask }) => ask.keyId,
  "otp.check": (input) => input.keyId,
  "otp.token.create": (input) => input.keyId,
  "otp.token.list": (input) => input.keyId,
  "otp.token.revoke": (input) => input.keyId,
  "otp.send": (input) => input.keyId,
  "otp.receive": ({ parcel }) => parcel.record.keyId,
};

/** The ceremony or key that an operation of the key store names. */
export function namedByKeyStore<N extends KeyStoreOperation>(name: N, input: InputOf<N>): AnyHashId | undefined {
  return (NAMED[name] as (input: InputOf<N>) => AnyHashId | undefined)(input);
}
