/** A page that shows nothing: somewhere else to go. */

export {};
