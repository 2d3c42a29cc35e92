/** See null-device.mjs. */
export declare function installNullDevice(): void;
