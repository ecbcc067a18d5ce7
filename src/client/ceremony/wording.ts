import { Fault } from "../../errors.ts";
import { accountName } from "../../wire/accountname.ts";
import { ceremonyPurpose, outputSpec, seatName, storeName } from "../../wire/ceremony/records.ts";
import type { Codec } from "../../wire/codec.ts";
import type { CeremonyClient } from "../ceremonyapi.ts";

type Worded = Pick<Parameters<CeremonyClient["ceremonyOpen"]>[0], "name" | "purpose" | "output" | "seats">;

const NAME = "it is made of up to 64 lower-case letters, digits, . _ - and begins with a letter or digit";

function demand<T>(codec: Codec<T>, value: T, message: string, why: string): void {
  try {
    codec.decode(codec.encode(value), "");
  } catch {
    throw new Fault("bad_input", message, { why });
  }
}

/** Holds what a key is to be called to the form of names in the store. @throws Fault bad_input */
export const checkKeyName = (name: string): void =>
  demand(storeName, name, `"${name}" cannot be the name of a key in the store`, NAME);

const line = (bytes: number): string => `it is one line of 1 to ${bytes} bytes`;

/** Holds a purpose to the form in which everyone can read it. @throws Fault bad_input */
export const checkPurpose = (purpose: string): void =>
  demand(ceremonyPurpose, purpose, "that cannot be the purpose of a ceremony", line(256));

/** Holds what a participant is called to that form. @throws Fault bad_input */
export const checkSeatName = (name: string): void =>
  demand(seatName, name, `"${name}" cannot be the name of a participant`, line(64));

/** Holds the words of a ceremony to the form in which everyone can read them (docs/protocol.md §10.2). @throws Fault bad_input */
export function checkWording({ name, purpose, output, seats }: Worded): void {
  checkKeyName(name);
  checkPurpose(purpose);
  for (const seat of seats) {
    if (seat.account !== null) {
      demand(accountName, seat.account, `"${seat.account}" cannot be the name of an account`, line(128));
    }
    checkSeatName(seat.name);
  }
  const texts = "label and issuer are one line of at most 128 bytes each, and the label is not empty";
  demand(outputSpec, output, `the server makes no such ${output.kind}`, texts);
}
