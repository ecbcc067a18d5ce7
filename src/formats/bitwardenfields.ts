import type { FieldKind } from "../protocol/content.ts";

/** Bitwarden's numbers for kinds of items and of custom fields. */
export const ITEM = { login: 1, note: 2, card: 3, identity: 4, ssh: 5, bank: 6, licence: 7, passport: 8 } as const;
export const CUSTOM = { text: 0, hidden: 1, boolean: 2, linked: 3 } as const;

/** A member of Bitwarden's and the field that it becomes, both ways. */
export interface Mapped {
  readonly key: string;
  readonly name: string;
  readonly kind: FieldKind;
}

const mapped = (key: string, name: string, kind: FieldKind = "text"): Mapped => ({ key, name, kind });

/** Members of `card` beside the number and the month of expiry. */
export const CARD: readonly Mapped[] = [
  mapped("cardholderName", "holder"),
  mapped("brand", "brand"),
  mapped("code", "code", "hidden"),
];

/** Members of `identity`. */
export const IDENTITY: readonly Mapped[] = [
  mapped("title", "title"),
  mapped("firstName", "first-name"),
  mapped("middleName", "middle-name"),
  mapped("lastName", "last-name"),
  mapped("address1", "address"),
  mapped("address2", "address-2"),
  mapped("address3", "address-3"),
  mapped("city", "city"),
  mapped("state", "state"),
  mapped("postalCode", "postal-code"),
  mapped("country", "country"),
  mapped("company", "company"),
  mapped("email", "email"),
  mapped("phone", "phone"),
  mapped("ssn", "ssn", "hidden"),
  mapped("username", "user"),
  mapped("passportNumber", "passport", "hidden"),
  mapped("licenseNumber", "licence", "hidden"),
];

/** Members of the kinds that have no type of ours; they are read into the fields of a note. */
export const OTHER: { readonly [type: number]: { readonly key: string; readonly members: readonly Mapped[] } } = {
  [ITEM.bank]: {
    key: "bankAccount",
    members: [
      mapped("bankName", "bank"),
      mapped("nameOnAccount", "holder"),
      mapped("accountType", "account-type"),
      mapped("accountNumber", "account-number", "hidden"),
      mapped("routingNumber", "routing-number"),
      mapped("branchNumber", "branch-number"),
      mapped("pin", "pin", "hidden"),
      mapped("swiftCode", "swift"),
      mapped("iban", "iban", "hidden"),
      mapped("bankContactPhone", "phone"),
    ],
  },
  [ITEM.licence]: {
    key: "driversLicense",
    members: [
      mapped("firstName", "first-name"),
      mapped("middleName", "middle-name"),
      mapped("lastName", "last-name"),
      mapped("dateOfBirth", "date-of-birth", "date"),
      mapped("licenseNumber", "licence", "hidden"),
      mapped("issuingCountry", "issuing-country"),
      mapped("issuingState", "issuing-state"),
      mapped("issueDate", "issued", "date"),
      mapped("expirationDate", "expires", "date"),
      mapped("issuingAuthority", "issuing-authority"),
      mapped("licenseClass", "licence-class"),
    ],
  },
  [ITEM.passport]: {
    key: "passport",
    members: [
      mapped("surname", "last-name"),
      mapped("givenName", "first-name"),
      mapped("dateOfBirth", "date-of-birth", "date"),
      mapped("sex", "sex"),
      mapped("birthPlace", "birth-place"),
      mapped("nationality", "nationality"),
      mapped("issuingCountry", "issuing-country"),
      mapped("passportNumber", "passport", "hidden"),
      mapped("passportType", "passport-type"),
      mapped("nationalIdentificationNumber", "national-id", "hidden"),
      mapped("issuingAuthority", "issuing-authority"),
      mapped("issueDate", "issued", "date"),
      mapped("expirationDate", "expires", "date"),
    ],
  },
};

/** `MM/YYYY` of a card's month and year, or null where they are none. */
export function cardExpiry(month: string, year: string): string | null {
  if (!/^(?:0?[1-9]|1[0-2])$/.test(month) || !/^(?:\d\d)?\d\d$/.test(year)) return null;
  return `${month.padStart(2, "0")}/${year.length === 2 ? `20${year}` : year}`;
}
