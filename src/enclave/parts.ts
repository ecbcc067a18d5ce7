import type { RandomSource } from "../crypto/bytes.ts";
import type { EnclaveOperation } from "./api.ts";
import type { EnclaveInput, EnclaveOutput } from "./frames.ts";
import type { Journal } from "./journal.ts";
import type { EnclaveKeys } from "./keys.ts";

/** Everything an enclave depends on. */
export interface EnclaveParts {
  readonly keys: EnclaveKeys;
  readonly journal: Journal;
  readonly now: () => number;
  readonly random: RandomSource;
}

/** The work of some operations. */
export type Handlers<O extends EnclaveOperation = EnclaveOperation> = {
  readonly [N in O]: (input: EnclaveInput<N>) => Promise<EnclaveOutput<N>>;
};
