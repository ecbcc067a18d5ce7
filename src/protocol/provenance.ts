import type { CeremonyId, StoredKeyId } from "../ids.ts";

/** Hexadecimal digits of an id that an origin holds: enough that nobody finds another id with the same ones. */
const ID_DIGITS = 32;

/** Form of the origin of a value that a server's enclave has seen. */
export const CUSTODIAL_ORIGIN = /^(ceremony|provisioned):[0-9a-f]{32}$/;

/** Origin of a value that a ceremony's enclave combined (docs/protocol.md §5.3). */
export const ceremonyOrigin = (ceremonyId: CeremonyId): string => `ceremony:${ceremonyId.slice(0, ID_DIGITS)}`;

/** Origin of a one-time password that a distribution server gave away for good (docs/protocol.md §5.3). */
export const provisionedOrigin = (keyId: StoredKeyId): string => `provisioned:${keyId.slice(0, ID_DIGITS)}`;

/** True for the origin of a value that a server's enclave has seen: its custody is custodial (P12). */
export const isCustodial = (origin: string): boolean => CUSTODIAL_ORIGIN.test(origin);
