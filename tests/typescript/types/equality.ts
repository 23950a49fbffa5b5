/** Whether two types are one: `Equal<A, B>` is `true`, or an error where `holds` takes it. */
export type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Take `true` alone. */
export declare function holds<Claim extends true>(): Claim;
