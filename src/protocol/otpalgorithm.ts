/** Hash functions of one-time passwords (RFC 6238 §1.2): apart from what computes, for who only names them. */
export const OTP_ALGORITHMS = ["SHA1", "SHA256", "SHA512"] as const;
export type OtpAlgorithm = (typeof OTP_ALGORITHMS)[number];
