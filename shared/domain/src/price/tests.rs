//! Exact sums: examples, and laws that hold for every price and every use.

use proptest::prelude::*;

use super::*;

fn list(prices: &[(Unit, i64)]) -> PriceList {
    prices.iter().fold(PriceList::default(), |list, (unit, pico)| list.with(*unit, Pico(*pico)))
}

/// The sandbox's chat model.
fn chat(margin_bp: u32) -> Price {
    Price { list: list(&[(Unit::Input, 1_000_000), (Unit::Output, 4_000_000)]), margin_bp }
}

fn tokens(input_tokens: u64, output_tokens: u64, cached_tokens: u64) -> Used {
    Used { input_tokens, output_tokens, cached_tokens, requests: 1, ..Used::default() }
}

#[test]
fn costs_are_exact_and_rounded_up_once() {
    assert_eq!(chat(0).cost(&tokens(1_000_000, 1_000_000, 0)), Some(Nano(500 * Nano::CENT.0)));
    assert_eq!(chat(500).cost(&tokens(1_000_000, 1_000_000, 0)), Some(Nano(525 * Nano::CENT.0)));
    assert_eq!(chat(0).cost(&Used::default()), Some(Nano::ZERO));
    let odd = Price { list: list(&[(Unit::Input, 1), (Unit::Output, 1)]), margin_bp: 1 };
    assert_eq!(odd.cost(&tokens(1, 0, 0)), Some(Nano(1)), "a trillionth is rounded up");
    assert_eq!(odd.cost(&tokens(1000, 1000, 0)), Some(Nano(3)), "2 nano and 0.01 % of it");
    let video = Price { list: list(&[(Unit::VideoSecond, 50_000_000_000)]), margin_bp: 0 };
    assert_eq!(video.cost(&Used::job(Modality::Video, 500)), Some(Nano(25_000_000)), "2.5 cents");
}

#[test]
fn a_gap_in_the_list_is_refused_or_has_a_meaning() {
    assert_eq!(chat(0).cost(&Used::job(Modality::Video, 1)), None);
    let input_only = Price { list: list(&[(Unit::Input, 7)]), margin_bp: 0 };
    assert_eq!(input_only.cost(&tokens(1, 1, 0)), None, "output has no price");
    assert_eq!(chat(0).cost(&tokens(10, 0, 4)), chat(0).cost(&tokens(10, 0, 0)), "cached input costs what input does");
    let cached = Price { list: chat(0).list.with(Unit::CachedInput, Pico(100_000)), margin_bp: 0 };
    assert_eq!(cached.cost(&tokens(10, 0, 4)), Some(Nano(6 * 1000 + 4 * 100)));
    assert_eq!(cached.cost(&tokens(10, 0, 99)), Some(Nano(10 * 100)), "no more is cached than was read");
    assert_eq!(chat(0).cost(&Used { images: 3, ..tokens(1, 0, 0) }), chat(0).cost(&tokens(1, 0, 0)));
    let flat = Price { list: list(&[(Unit::Request, 5_000)]), margin_bp: 0 };
    assert_eq!(flat.cost(&tokens(1000, 1000, 10)), Some(Nano(5)), "a price per request pays for what has no price");
    assert_eq!(flat.cost(&Used { requests: 0, ..tokens(1, 1, 0) }), None, "but not for no request");
}

#[test]
fn what_is_more_than_an_amount_can_be_is_refused() {
    let dear = Price { list: list(&[(Unit::Input, i64::MAX), (Unit::Output, i64::MAX)]), margin_bp: u32::MAX };
    assert_eq!(dear.cost(&tokens(u64::MAX, u64::MAX, 0)), None);
    assert_eq!(dear.breakdown(&tokens(u64::MAX, 0, 0)), None);
    let broken = Price { list: list(&[(Unit::Input, -1)]), margin_bp: 0 };
    assert_eq!(broken.cost(&tokens(1, 0, 0)), None, "a cost is never below zero");
}

#[test]
fn which_work_can_be_charged() {
    let price = |units: &[(Unit, i64)]| Price { list: list(units), margin_bp: 0 };
    assert!(chat(0).prices_chat() && chat(0).prices_job(Modality::Text) && !chat(0).prices_job(Modality::Video));
    assert!(!price(&[(Unit::Input, 1)]).prices_chat());
    assert!(price(&[(Unit::VideoSecond, 0)]).prices_job(Modality::Video));
    assert!(price(&[(Unit::MusicSecond, 1)]).prices_job(Modality::Music));
    assert!(price(&[(Unit::Mesh, 1)]).prices_job(Modality::ThreeD));
    let flat = price(&[(Unit::Request, 1)]);
    assert!(flat.prices_chat());
    assert!([Modality::Video, Modality::Music, Modality::ThreeD].into_iter().all(|modality| flat.prices_job(modality)));
    assert!(!Price::default().prices_chat() && !Price::default().prices_job(Modality::ThreeD));
}

#[test]
fn a_breakdown_adds_up() {
    let price = Price { list: chat(0).list.with(Unit::VideoSecond, Pico(3)), margin_bp: 250 };
    let used = Used { video_millis: 1500, ..tokens(10, 5, 4) };
    let shown = price.breakdown(&used).unwrap();
    let lines: Vec<_> =
        shown.lines.iter().map(|line| (line.unit, line.quantity_json().to_string(), line.amount)).collect();
    let expected = [
        (Unit::Input, "6".to_owned(), Femto(6_000_000_000)),
        (Unit::Output, "5".to_owned(), Femto(20_000_000_000)),
        (Unit::CachedInput, "4".to_owned(), Femto(4_000_000_000)),
        (Unit::VideoSecond, "1.5".to_owned(), Femto(4500)),
    ];
    assert_eq!(lines, expected);
    assert_eq!(shown.list, Femto(30_000_004_500));
    assert_eq!(shown.total, price.cost(&used).unwrap());
    assert_eq!(shown.list.0 + shown.margin.0, i128::from(shown.total.0) * FEMTO_PER_NANO);
    assert_eq!(Femto(30_000_000_000).cents_json().to_string(), "0.003");
}

#[test]
fn json_is_small_and_forgives_what_is_new() {
    let price = chat(500);
    let text = serde_json::to_string(&price).unwrap();
    assert_eq!(text, r#"{"list":{"input":1000000,"output":4000000},"margin_bp":500}"#);
    assert_eq!(serde_json::from_str::<Price>(&text).unwrap(), price);
    let newer = r#"{"list":{"input":1,"smell":2},"margin_bp":0}"#;
    assert_eq!(serde_json::from_str::<Price>(newer).unwrap().list, list(&[(Unit::Input, 1)]));
    assert!(serde_json::from_str::<PriceList>(r#"{"input":-1}"#).is_err());
    assert!(serde_json::from_str::<PriceList>(r#"{"input":0.5}"#).is_err());
    let used = tokens(3, 0, 0);
    assert_eq!(serde_json::to_string(&used).unwrap(), r#"{"input_tokens":3,"requests":1}"#);
    assert_eq!(serde_json::from_str::<Used>("{}").unwrap(), Used::default());
    assert!(Unit::ALL.into_iter().all(|unit| Unit::parse(unit.as_str()) == Some(unit)));
    assert_eq!(Unit::parse("smell"), None);
}

#[test]
fn a_million_charges_are_exact() {
    let price = Price { list: list(&[(Unit::Input, 150_000), (Unit::Output, 600_000)]), margin_bp: 500 };
    let (mut sum, mut femto) = (0i64, 0i128);
    for call in 0..1_000_000u64 {
        let used = tokens(call % 1000, call % 77, 0);
        let cost = price.cost(&used).unwrap();
        sum += cost.0;
        femto += i128::from(used.input_tokens) * 157_500_000 + i128::from(used.output_tokens) * 630_000_000;
    }
    // Every other call reads an odd number of tokens, which comes to half a nano that is rounded up.
    assert_eq!(i128::from(sum) * FEMTO_PER_NANO, femto + 500_000 * FEMTO_PER_NANO / 2);
}

fn any_price() -> impl Strategy<Value = Price> {
    (proptest::collection::vec(0..=10_000_000_000_000i64, Unit::ALL.len()), 0..=100_000u32).prop_map(
        |(prices, margin_bp)| {
            let priced: Vec<_> = Unit::ALL.into_iter().zip(prices).collect();
            Price { list: list(&priced), margin_bp }
        },
    )
}

fn any_used() -> impl Strategy<Value = Used> {
    let count = || 0..=1_000_000u64;
    (count(), count(), 0..=100u64, 0..=10u64, count(), count(), 0..=10u64, 0..=10u64).prop_map(
        |(input, output_tokens, cached_percent, images, video_millis, music_millis, meshes, requests)| Used {
            input_tokens: input,
            output_tokens,
            cached_tokens: input * cached_percent / 100,
            images,
            video_millis,
            music_millis,
            meshes,
            requests,
        },
    )
}

fn plus(a: &Used, b: &Used) -> Used {
    Used {
        input_tokens: a.input_tokens + b.input_tokens,
        output_tokens: a.output_tokens + b.output_tokens,
        cached_tokens: a.cached_tokens + b.cached_tokens,
        images: a.images + b.images,
        video_millis: a.video_millis + b.video_millis,
        music_millis: a.music_millis + b.music_millis,
        meshes: a.meshes + b.meshes,
        requests: a.requests + b.requests,
    }
}

proptest! {
    #[test]
    fn costs_are_never_negative_and_more_never_costs_less(price in any_price(), a in any_used(), b in any_used()) {
        let (part, whole) = (price.cost(&a).unwrap(), price.cost(&plus(&a, &b)).unwrap());
        prop_assert!(Nano::ZERO <= part && part <= whole);
    }

    #[test]
    fn the_parts_cost_what_the_whole_does_and_at_most_one_nano_more(price in any_price(), a in any_used(), b in any_used()) {
        let parts = price.cost(&a).unwrap().0 + price.cost(&b).unwrap().0;
        let whole = price.cost(&plus(&a, &b)).unwrap().0;
        prop_assert!(whole <= parts && parts <= whole + 1);
    }

    #[test]
    fn no_cost_is_above_the_most(price in any_price(), used in any_used(), cached_tokens in 0..=2_000_000u64) {
        let cost = price.cost(&Used { cached_tokens, ..used });
        prop_assert!(cost <= price.most(&used));
    }

    #[test]
    fn every_breakdown_adds_up(price in any_price(), used in any_used()) {
        let shown = price.breakdown(&used).unwrap();
        prop_assert_eq!(shown.lines.iter().map(|line| line.amount.0).sum::<i128>(), shown.list.0);
        prop_assert_eq!(shown.list.0 + shown.margin.0, i128::from(shown.total.0) * FEMTO_PER_NANO);
    }

    #[test]
    fn any_numbers_at_all_give_a_cost_or_none(prices in proptest::collection::vec(any::<i64>(), 8), margin_bp: u32, n: [u64; 8]) {
        let priced: Vec<_> = Unit::ALL.into_iter().zip(prices).collect();
        let price = Price { list: list(&priced), margin_bp };
        let [input_tokens, output_tokens, cached_tokens, images, video_millis, music_millis, meshes, requests] = n;
        let used =
            Used { input_tokens, output_tokens, cached_tokens, images, video_millis, music_millis, meshes, requests };
        let cost = price.cost(&used);
        prop_assert!(cost.is_none_or(|cost| cost >= Nano::ZERO));
        prop_assert_eq!(price.breakdown(&used).map(|shown| shown.total), cost);
    }
}
