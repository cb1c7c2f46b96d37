//! What the derive writes: `Value`, `Record` and a constant per field.

use proc_macro2::TokenStream;
use quote::quote;

use crate::attributes::{Column, Metric, Table};

/// The implementations for one struct.
pub(crate) fn record(table: &Table) -> TokenStream {
    let name = &table.name;
    let constants = table.columns.iter().map(|column| constant(table, column));
    let defs = table.columns.iter().map(|column| {
        let constant = column.constant();
        quote!(#name::#constant.def())
    });
    let idents: Vec<_> = table.columns.iter().map(|column| &column.ident).collect();
    let types: Vec<_> = table
        .columns
        .iter()
        .map(|column| &column.data_type)
        .collect();
    let at = 0..table.columns.len();
    let tags = at
        .clone()
        .map(|i| quote!(<#name as ::terrane::Record>::FIELDS[#i].tag()));
    quote! {
        impl #name {
            #(#constants)*
        }

        #[automatically_derived]
        impl ::terrane::Record for #name {
            const FIELDS: &'static [::terrane::codec::FieldDef] = &[#(#defs),*];
        }

        #[automatically_derived]
        impl ::terrane::Value for #name {
            const WIRE: ::terrane::codec::Wire = ::terrane::codec::Wire::List;

            fn value_type() -> ::terrane::codec::DataType {
                ::terrane::codec::DataType::Record
            }

            fn encode_value(&self, out: &mut ::std::vec::Vec<u8>) {
                out.push(::terrane::codec::record::RECORD_VERSION);
                #(<#types as ::terrane::codec::Column>::encode_field(&self.#idents, #tags, out);)*
            }

            fn decode_value(bytes: &[u8]) -> ::terrane::Result<Self> {
                let fields = <#name as ::terrane::Record>::FIELDS;
                let mut reader = ::terrane::codec::record::Reader::of(bytes)?;
                let record = #name {
                    #(#idents: reader.field::<#types>(&fields[#at])?,)*
                };
                reader.finish()?;
                ::std::result::Result::Ok(record)
            }

            fn fields() -> &'static [::terrane::codec::FieldDef] {
                <#name as ::terrane::Record>::FIELDS
            }
        }
    }
}

/// `pub const EMAIL: Field<User, String> = ..;`
fn constant(table: &Table, column: &Column) -> TokenStream {
    let (name, data_type, visibility) = (&table.name, &column.data_type, &column.visibility);
    let (constant, id, text) = (column.constant(), column.id, column.name());
    let doc = format!("The field `{text}`, id {id}.");
    let flag = |on: bool, call: TokenStream| on.then_some(call);
    let unique = flag(column.unique, quote!(.unique::<#data_type>()));
    let index = flag(column.index, quote!(.index::<#data_type>()));
    let filter = flag(column.filter, quote!(.filter::<#data_type>()));
    let default = flag(column.default, quote!(.default::<#data_type>()));
    let vector = column.vector.as_ref().map(|search| {
        let (dim, metric) = (search.dim, metric(search.metric));
        let exact = search.exact.then(|| quote!(.exact()));
        quote!(.vector::<#data_type>(::terrane::codec::vector::Metric::#metric, #dim) #exact)
    });
    quote! {
        #[doc = #doc]
        #visibility const #constant: ::terrane::Field<#name, #data_type> = ::terrane::Field::new(
            ::terrane::codec::FieldDef::of::<#data_type>(#id, #text)
                #unique #index #filter #default #vector
        );
    }
}

fn metric(metric: Metric) -> TokenStream {
    match metric {
        Metric::L2 => quote!(L2),
        Metric::Cosine => quote!(Cosine),
        Metric::Dot => quote!(Dot),
    }
}
